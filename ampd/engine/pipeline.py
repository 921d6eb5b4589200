"""The step pipeline: stages wrapped around `execute`, composed by slot.

A stage is any callable `stage(attempt, proceed) -> Outcome`: it may change the attempt it passes on, judge or shape
the outcome that comes back, and call `proceed` again, which is a replay. That last power is why stages are not
context managers (a `with` body cannot run twice) nor event hooks (a flag set far away would own the retry).
Slots give the order, so the order of registration cannot change behaviour.

A stage that keeps state implements `Stateful`; one that reads live configuration implements `Configurable`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ampd.core.config import JobConfig
from ampd.core.spec import Slot
from ampd.engine.window import Attempt, Outcome
from ampd.errors import PipelineError, PluginError

Proceed = Callable[[Attempt], Outcome]


class Stage(Protocol):
    """One ring of the pipeline."""

    def __call__(self, attempt: Attempt, proceed: Proceed, /) -> Outcome:
        """Run the rest of the pipeline by calling `proceed`, once or more, and return an outcome."""
        ...


@runtime_checkable
class Configurable(Protocol):
    """A stage that follows live configuration; called between windows, on the loop's thread."""

    def configure(self, config: JobConfig) -> None:
        """Take over a configuration that is already validated."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A stage whose state belongs in a checkpoint; values are tensors or plain data that JSON can hold."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly from here."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A stage that wants to see a deferred outcome once more, when its figures have arrived and were good."""

    def settled(self, outcome: Outcome) -> None:
        """The outcome with its verdict FINITE; its window was applied a window ago."""
        ...


@runtime_checkable
class Dividing(Protocol):
    """A stage that has micro-batches run in parts."""

    def divide(self, parts: int) -> None:
        """In at least so many from now on; called between windows."""
        ...


@runtime_checkable
class Resettable(Protocol):
    """A stage that `ampctl reset scaler` puts back to where it began."""

    def reset(self) -> None:
        """Forget what was learned; called between windows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Stages by what they can do besides run a window.

    They are asked once: isinstance looks a protocol's methods up in every stage, which takes longer than most of what
    the stages then do, and it would be done in every window and at every change.
    """

    configurable: tuple[Configurable, ...]
    settling: tuple[Settling, ...]
    dividing: tuple[Dividing, ...]
    resettable: tuple[Resettable, ...]

    @classmethod
    def of(cls, stages: Sequence[tuple[str, Slot, Stage]]) -> Abilities:
        """What these can do."""
        each = [stage for _name, _slot, stage in stages]
        return cls(
            configurable=tuple(stage for stage in each if isinstance(stage, Configurable)),
            settling=tuple(stage for stage in each if isinstance(stage, Settling)),
            dividing=tuple(stage for stage in each if isinstance(stage, Dividing)),
            resettable=tuple(stage for stage in each if isinstance(stage, Resettable)),
        )


def compose(stages: Sequence[tuple[str, Slot, Stage]], execute: Proceed) -> Proceed:
    """One callable that runs a window through named stages around `execute`.

    Within OBSERVE and SHAPE the given order holds, outermost first. Raises PipelineError where a slot that takes
    exactly one stage has none or several.
    """
    _check_slots(stages)
    proceed = execute
    outermost_first = sorted(stages, key=lambda entry: entry[1])
    for name, _slot, stage in reversed(outermost_first):
        proceed = _ring(name, stage, proceed)
    return proceed


def required_stage(made: Any, name: str) -> Stage:
    """What the stage `name` was built as, where it can be called; raises PluginError."""
    if not callable(made):
        raise PluginError(
            f"stage {name!r} was built as something of type {type(made).__name__}, which is not callable; "
            "a stage is called with (attempt, proceed)"
        )
    stage: Stage = made
    return stage


def _ring(name: str, stage: Stage, proceed: Proceed) -> Proceed:
    def run(attempt: Attempt) -> Outcome:
        outcome = stage(attempt, proceed)
        if isinstance(outcome, Outcome):
            return outcome
        raise PipelineError(
            f"stage {name!r} returned something of type {type(outcome).__name__}, expected the Outcome that proceed(attempt) gave"
        )

    return run


def _check_slots(stages: Sequence[tuple[str, Slot, Stage]]) -> None:
    for slot in Slot:
        names = [name for name, s, _stage in stages if s is slot]
        if slot.is_single and len(names) != 1:
            found = " and ".join(names) or "none"
            raise PipelineError(
                f"slot {slot.name} takes exactly one stage, the pipeline has {found}; see [pipeline] stages"
            )
