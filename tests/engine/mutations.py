"""A pytest plugin that breaks the engine on purpose, a different part in each test: `-p tests.engine.mutations`.

Tests that pass say little unless they fail where the behaviour is gone. Each mutation takes one protection out and
names the test that must notice; `test_mutations` runs them all. The patch holds while that one test runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from ampd.core.amp import AMPConfig
from ampd.engine.rewind import Rewind
from ampd.engine.scale import LossScale
from ampd.engine.stages import scaler
from ampd.engine.window import Outcome, Verdict


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """`owner.attribute` is replaced by `instead` while `test` (relative to this folder) runs."""

    name: str
    test: str
    owner: Any
    attribute: str
    instead: Callable[..., Any]

    @property
    def node(self) -> str:
        """The test as pytest names it."""
        return f"tests/engine/{self.test}"


def nothing(*_arguments: object) -> None:
    """A protection that is not there."""


def judge_by_the_norm(outcome: Outcome, *others: Any, scaled: bool) -> Outcome:
    """The verdict without the losses."""
    judged = _judge(outcome, *others, scaled=scaled)
    is_finite = judged.norm - judged.norm == 0
    return replace(judged, verdict=Verdict.FINITE if is_finite else Verdict.NONFINITE)


def count_what_is_bad(self: scaler.Scaler, outcome: Outcome, norm: Tensor, figures: Tensor) -> Outcome:
    """A flag that counts losses and norm instead of being 0 or 1."""
    deferred = _defer(self, outcome, norm, figures)
    count = figures.isfinite().logical_not().sum().to(torch.float32).reshape(1)
    return replace(deferred, found=count)


def update_without_bounds(self: LossScale, found: Tensor, amp: AMPConfig) -> None:
    """The loss scale without a floor."""
    _update(self, found, msgspec.structs.replace(amp, min_scale=0.0))


_judge, _defer, _update = scaler.judge, scaler.Scaler._defer, LossScale.update

MUTATIONS = (
    Mutation(
        name="no rewind", owner=Rewind, attribute="restore", instead=nothing,
        test="test_golden.py::test_fallback_equals_float32_from_the_start",
    ),
    Mutation(
        name="no rewind, plugins", owner=Rewind, attribute="restore", instead=nothing,
        test="test_golden_plugins.py::test_windows_that_fell_back_are_float32_from_the_start[digits-every]",
    ),
    Mutation(
        name="no loss flag", owner=scaler, attribute="judge", instead=judge_by_the_norm,
        test="test_guard.py::test_a_bad_loss_with_good_gradients_is_not_applied[inf-float32]",
    ),
    Mutation(
        name="no buffer select", owner=Rewind, attribute="select_buffers", instead=nothing,
        test="test_adaptive.py::test_a_bad_window_leaves_no_trace_until_it_is_replayed",
    ),
    Mutation(
        name="no clamp of the flag", owner=scaler.Scaler, attribute="_defer", instead=count_what_is_bad,
        test="test_adaptive.py::test_every_window_is_applied_exactly_once",
    ),
    Mutation(
        name="no clamp of the scale", owner=LossScale, attribute="update", instead=update_without_bounds,
        test="test_guard.py::test_two_hundred_bad_windows_do_no_harm[nan-grad]",
    ),
)  # fmt: skip
_BY_NODE = {mutation.node: mutation for mutation in MUTATIONS}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Break what the table says while the test runs; a test that the table does not know is an error."""
    mutation = _BY_NODE[item.nodeid]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutation.owner, mutation.attribute, mutation.instead)
        yield
