"""One stage alone: taken from a pipeline, with a script in the place of the rings inside it. No model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import Phase, settings
from msgspec.structs import replace

from ampd.core.precision import Precision
from ampd.engine.pipeline import Stage
from ampd.engine.trainer import Trainer
from ampd.engine.window import Attempt, Outcome, Verdict
from tests.engine import toy

WHOLE_RUNS = settings(max_examples=15, phases=[Phase.explicit, Phase.reuse, Phase.generate])
"""For properties of whole runs: an example takes a tenth of a second, so looking for a smaller one takes too long."""

FINITE: dict[str, Any] = {"verdict": Verdict.FINITE, "loss": 1.0, "norm": 1.0, "grad_norm": torch.tensor(1.0)}
BAD_LOSS: dict[str, Any] = {"verdict": Verdict.NONFINITE, "loss": float("nan"), "norm": float("nan")}
BAD_GRADIENT: dict[str, Any] = {"verdict": Verdict.NONFINITE, "loss": 1.0, "norm": float("inf")}
UNJUDGED: dict[str, Any] = {}


class Script:
    """A stand-in for `proceed`: each call gives the next answer; `attempts` are what it was called with.

    `meanwhile` is called with each attempt, to do what a real attempt would do besides answering.
    """

    def __init__(
        self, *answers: dict[str, Any], meanwhile: Callable[[Attempt], None] = lambda _attempt: None
    ) -> None:
        self.attempts: list[Attempt] = []
        self._answers = list(answers)
        self._meanwhile = meanwhile

    def __call__(self, attempt: Attempt) -> Outcome:
        self.attempts.append(attempt)
        self._meanwhile(attempt)
        answer = {"losses": torch.ones(1), **self._answers.pop(0)}
        return Outcome(attempt=attempt, **answer)

    @property
    def precisions(self) -> list[str]:
        """At which precisions it was called."""
        return [str(attempt.precision) for attempt in self.attempts]


def stage_of(subject: Trainer, name: str) -> Any:
    """The stage `name` of a trainer."""
    (found,) = [stage for known, _slot, stage in subject.parts.stages if known == name]
    return found


def stage(name: str, **sections: dict[str, Any]) -> Stage:
    """The stage `name` of a toy trainer with these settings."""
    found: Stage = stage_of(toy.trainer(**sections), name)
    return found


def attempt_at(precision: str, **fields: Any) -> Attempt:
    """The first attempt at the toy's first window."""
    return replace(Attempt(window=toy.window(0), precision=Precision(precision)), **fields)
