"""SCALE alone: when a loss is scaled, what comes out unscaled, and the verdict of the guard in every precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ampd.engine.trainer import Trainer
from ampd.engine.window import Attempt, Outcome, Verdict
from tests.engine import toy
from tests.engine.rings import Script, attempt_at, stage_of

PRECISIONS = ["float16", "bfloat16", "float32"]
UNSCALED = ["bfloat16", "float32"]
BAD = [math.inf, -math.inf, math.nan]


def judged(
    subject: Trainer, precision: str, gradient: float, losses: tuple[float, ...] = (1.0,), **fields: Any
) -> Outcome:
    """The outcome of an attempt whose backward left `gradient` everywhere, times the loss scale where there is one."""

    def backward(attempt: Attempt) -> None:
        factor = 1.0 if attempt.loss_scale is None else attempt.loss_scale.item()
        for parameter in subject.parts.parameters:
            parameter.grad = torch.full_like(parameter, gradient * factor)

    inner = Script({"losses": torch.tensor(losses)}, meanwhile=backward)
    outcome: Outcome = stage_of(subject, "scaler")(attempt_at(precision, **fields), inner)
    return outcome


def scale_of(subject: Trainer) -> float:
    """The loss scale that the next float16 window would have."""
    seen: list[float] = []

    def look(attempt: Attempt) -> None:
        seen.append(math.nan if attempt.loss_scale is None else attempt.loss_scale.item())

    stage_of(subject, "scaler")(
        attempt_at("float16", rung=1), Script({"losses": torch.ones(1)}, meanwhile=look)
    )
    return seen[0]


def small(**amp: Any) -> Trainer:
    """A trainer whose scale begins at 8."""
    return toy.trainer(amp={"init_scale": 8.0, **amp})


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_come_out_unscaled(precision: str) -> None:
    """Whatever the loss was multiplied by, the parameters hold the gradients of the loss itself."""
    subject = small()

    outcome = judged(subject, precision, 0.25)

    assert outcome.verdict is Verdict.FINITE
    assert all(
        torch.equal(p.grad, torch.full_like(p, 0.25)) for p in subject.parts.parameters if p.grad is not None
    )


@pytest.mark.parametrize(("precision", "scale"), [("float16", 8.0), ("bfloat16", None), ("float32", None)])
def test_only_float16_is_scaled(precision: str, scale: float | None) -> None:
    """The wider exponents need no scale; the outcome says which scale its attempt had."""
    subject, seen = small(), []

    def look(attempt: Attempt) -> None:
        seen.append(None if attempt.loss_scale is None else attempt.loss_scale.item())

    inner = Script({"losses": torch.ones(1)}, meanwhile=look)
    outcome = stage_of(subject, "scaler")(attempt_at(precision), inner)

    assert seen == [scale]
    assert outcome.scale == scale


@pytest.mark.parametrize("switch", ["scale_loss", "enable_gradient_scaling"])
def test_scaling_can_be_switched_off(switch: str) -> None:
    """Either switch leaves the float16 loss as it is, and the guard on."""
    subject = small(**{switch: False})

    good, bad = judged(subject, "float16", 1.0), judged(subject, "float16", math.inf)

    assert (good.scale, good.verdict, bad.verdict) == (None, Verdict.FINITE, Verdict.NONFINITE)


@pytest.mark.parametrize("poison", BAD)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_bad_gradients_are_never_finite(precision: str, poison: float) -> None:
    """The guard is the same in every precision."""
    outcome = judged(small(), precision, poison)

    assert outcome.verdict is Verdict.NONFINITE
    assert not math.isfinite(outcome.norm)


@pytest.mark.parametrize("poison", BAD)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bad_loss_is_never_finite(precision: str, poison: float) -> None:
    """One bad micro-batch is enough, even where all gradients are finite."""
    outcome = judged(small(), precision, 1.0, losses=(1.0, poison, 1.0))

    assert outcome.verdict is Verdict.NONFINITE
    assert math.isfinite(outcome.norm)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_bad_gradient_is_found(precision: str) -> None:
    """A single NaN in a single parameter, whichever it is."""
    subject = small()
    for victim in range(len(subject.parts.parameters)):

        def backward(_attempt: Attempt, victim: int = victim) -> None:
            for index, parameter in enumerate(subject.parts.parameters):
                parameter.grad = torch.ones_like(parameter)
                parameter.grad.view(-1)[-1] = math.nan if index == victim else 1.0

        inner = Script({"losses": torch.ones(1)}, meanwhile=backward)
        outcome = stage_of(subject, "scaler")(attempt_at(precision), inner)
        assert outcome.verdict is Verdict.NONFINITE


def test_a_norm_that_overflows_is_not_finite() -> None:
    """Finite gradients whose norm is not cannot be clipped, so they are not applied."""
    assert judged(small(), "float32", 3e38).verdict is Verdict.NONFINITE


def test_what_unscaling_makes_infinite_is_found() -> None:
    """Under a tiny scale finite gradients become infinite on unscaling: judged after it, not before."""
    subject = small(min_scale=2.0**-126, init_scale=2.0**-126)

    assert judged(subject, "float16", 3e38).verdict is Verdict.NONFINITE


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=6))
def test_the_loss_is_the_mean_over_micro_batches(losses: list[float]) -> None:
    """The reported loss is unscaled and weighs each micro-batch the same."""
    outcome = judged(SHARED, "float32", 1.0, losses=tuple(losses))

    assert outcome.loss == pytest.approx(sum(losses) / len(losses), abs=1e-9)


SHARED = small()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_norm_is_over_all_gradients(precision: str) -> None:
    """After unscaling, before clipping, as torch takes it; on the device and on the host."""
    subject = small()

    outcome = judged(subject, precision, 0.5)

    gradients = [p.grad for p in subject.parts.parameters if p.grad is not None]
    expected = torch.nn.utils.get_total_norm(gradients)
    assert outcome.grad_norm is not None
    assert torch.equal(outcome.grad_norm, expected)
    assert outcome.norm == expected.item()


def test_a_bad_window_backs_off_once() -> None:
    """Its replays move the scale no further, whether they are good or bad."""
    subject = small()

    judged(subject, "float16", math.inf)
    judged(subject, "float16", math.inf, rung=1)
    judged(subject, "float16", 1.0, rung=2)
    judged(subject, "float32", math.inf, rung=3)

    assert scale_of(subject) == 4.0


def test_a_bad_loss_backs_off_too() -> None:
    """Gradients that happen to be finite under an infinite loss do not count as a good window."""
    subject = small()

    judged(subject, "float16", 1.0, losses=(math.inf,))

    assert scale_of(subject) == 4.0


@pytest.mark.parametrize("precision", UNSCALED)
def test_other_precisions_park_the_scale(precision: str) -> None:
    """Good or bad, windows at other precisions neither use nor move it."""
    subject = small(growth_interval=1)

    for gradient in (1.0, math.inf, 1.0):
        judged(subject, precision, gradient)

    assert scale_of(subject) == 8.0


def test_good_windows_grow_the_scale() -> None:
    """So many in a row as the interval says."""
    subject = small(growth_interval=3)

    scales = [judged(subject, "float16", 1.0).scale for _ in range(7)]

    assert scales == [8.0, 8.0, 8.0, 16.0, 16.0, 16.0, 32.0]


@pytest.mark.parametrize(
    ("bounds", "scale"), [({"min_scale": 32.0}, 32.0), ({"max_scale": 2.0, "min_scale": 1.0}, 2.0), ({}, 8.0)]
)
def test_a_bound_that_moves_holds_at_once(bounds: dict[str, float], scale: float) -> None:
    """A floor that is raised or a ceiling that is lowered moves the scale before the next window."""
    subject = small()

    stage_of(subject, "scaler").configure(toy.config(amp=bounds))

    assert scale_of(subject) == scale


def test_a_scale_that_was_loaded_is_brought_within_the_bounds() -> None:
    """A run that goes on under a lower ceiling than it was saved with: the next configuration holds, though it is the same."""
    subject, config = toy.trainer(amp={"max_scale": 1024.0}), toy.config(amp={"max_scale": 1024.0})
    saved = stage_of(toy.trainer(), "scaler").state_dict()
    assert saved["value"].item() == 65536.0
    stage_of(subject, "scaler").load_state_dict(saved)

    stage_of(subject, "scaler").configure(config)

    assert scale_of(subject) == 1024.0


def test_a_reset_goes_back_to_the_beginning() -> None:
    """`ampctl reset scaler` gives the scale that the job file names."""
    subject = small()
    judged(subject, "float16", math.inf)

    stage_of(subject, "scaler").reset()

    assert scale_of(subject) == 8.0


OUTSIDE: list[Callable[[Trainer], None]] = [
    lambda _subject: None,
    lambda subject: stage_of(subject, "scaler").reset(),
]


@pytest.mark.parametrize("begin", OUTSIDE, ids=["built", "reset"])
def test_the_scale_begins_within_its_bounds(begin: Callable[[Trainer], None]) -> None:
    """A ceiling below init_scale holds for the first window as for any other."""
    subject = toy.trainer(amp={"max_scale": 1024.0})

    begin(subject)

    assert scale_of(subject) == 1024.0


def test_the_state_is_the_scale_parked_or_not() -> None:
    """A checkpoint written while bfloat16 trains has the float16 scale in it."""
    subject, restored = small(), toy.trainer()
    judged(subject, "float16", math.inf)
    judged(subject, "bfloat16", 1.0)

    stage_of(restored, "scaler").load_state_dict(stage_of(subject, "scaler").state_dict())

    assert scale_of(restored) == 4.0
