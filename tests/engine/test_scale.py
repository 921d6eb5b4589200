"""The loss scale: GradScaler's trajectory where its extras are off, and the rules of floor, ceiling and hysteresis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.amp import AMPConfig
from ampd.engine.scale import LossScale
from tests.engine import toy
from tests.engine.rings import WHOLE_RUNS

FLAGS = st.lists(st.booleans(), max_size=60)
UNBOUNDED: dict[str, Any] = {"min_scale": 0.0, "max_scale": float("inf"), "hysteresis": 1}


def trajectory(scale: LossScale, bad_windows: Sequence[bool], amp: AMPConfig) -> list[float]:
    """The scale after each window."""
    values = []
    for bad in bad_windows:
        scale.update(torch.tensor([float(bad)]), amp)
        values.append(scale.value.item())
    return values


def torchs_trajectory(initial: float, bad_windows: Sequence[bool], amp: AMPConfig) -> list[float]:
    """The scale of torch's own GradScaler after windows with such gradients."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", initial, amp.growth_factor, amp.backoff_factor, amp.growth_interval)
    values = []
    for bad in bad_windows:
        scaler.scale(torch.ones(()))
        parameter.grad = torch.tensor([float("inf") if bad else 1.0])
        scaler.step(optimizer)
        scaler.update()
        values.append(scaler.get_scale())
    return values


@given(
    bad_windows=FLAGS, initial=st.sampled_from([1.0, 128.0, 65536.0, 3.7]), interval=st.integers(1, 6),
    growth=st.floats(1.001, 8), backoff=st.floats(0.01, 0.999),
)  # fmt: skip
def test_the_trajectory_is_gradscalers(
    bad_windows: list[bool], initial: float, interval: int, growth: float, backoff: float
) -> None:
    """With floor, ceiling and hysteresis off, every value is torch's, bit for bit."""
    amp = AMPConfig(growth_factor=growth, backoff_factor=backoff, growth_interval=interval, **UNBOUNDED)

    ours = trajectory(LossScale(initial, toy.CPU), bad_windows, amp)

    assert ours == torchs_trajectory(initial, bad_windows, amp)


@WHOLE_RUNS
@given(bad_windows=FLAGS)
def test_a_whole_trainer_has_gradscalers_trajectory(bad_windows: list[bool]) -> None:
    """Through the pipeline too: real windows with bad gradients move the scale as GradScaler's would move."""
    factors = {"init_scale": 1024.0, "growth_interval": 3, "min_scale": 2.0**-30, "max_scale": 2.0**40}
    subject = toy.trainer(
        toy.Toy(micro_batches=1, width=2),
        amp={"dtype": "float16", "enable_fallback_to_fp32": False, **factors},
    )
    faults = {number: "nan-grad" for number, bad in enumerate(bad_windows[:12]) if bad}

    records = toy.run(subject, range(len(bad_windows[:12])), faults)  # type: ignore[arg-type]  # a Fault each

    expected = torchs_trajectory(1024.0, bad_windows[:12], toy.config(amp=factors).amp)
    assert [record.scale for record in records] == [1024.0, *expected][: len(records)]


@given(
    bad_windows=FLAGS, floor=st.sampled_from([1.0, 16.0, 2.0**-20]), ceiling=st.sampled_from([64.0, 2.0**10])
)
def test_the_scale_stays_between_floor_and_ceiling(
    bad_windows: list[bool], floor: float, ceiling: float
) -> None:
    """Whatever happens it never leaves its bounds."""
    amp = AMPConfig(min_scale=floor, max_scale=ceiling, growth_interval=1)

    assert all(floor <= value <= ceiling for value in trajectory(LossScale(32.0, toy.CPU), bad_windows, amp))


def test_the_scale_leaves_its_bounds_again() -> None:
    """A floor holds it up without holding it fast: from there it grows, from the ceiling it backs off."""
    amp = AMPConfig(min_scale=8.0, max_scale=32.0, growth_interval=1)
    scale = LossScale(16.0, toy.CPU)

    assert trajectory(scale, [True, True, False, False, False, True], amp) == [
        8.0,
        8.0,
        16.0,
        32.0,
        32.0,
        16.0,
    ]


@pytest.mark.parametrize(
    ("hysteresis", "expected"),
    [
        (1, [8.0, 4.0, 2.0, 1.0]),
        (2, [16.0, 8.0, 8.0, 4.0]),
        (3, [16.0, 16.0, 8.0, 8.0]),
    ],
)
def test_hysteresis_takes_so_many_bad_windows(hysteresis: int, expected: list[float]) -> None:
    """Only every so-manyth bad window backs off."""
    amp = AMPConfig(hysteresis=hysteresis, min_scale=0.5)

    assert trajectory(LossScale(16.0, toy.CPU), [True] * 4, amp) == expected


def test_strikes_need_not_be_in_a_row() -> None:
    """Good windows between two bad ones do not wipe the first."""
    amp = AMPConfig(hysteresis=2)

    assert trajectory(LossScale(16.0, toy.CPU), [True, False, False, True], amp) == [16.0, 16.0, 16.0, 8.0]


def test_a_strike_stops_growth() -> None:
    """A bad window that does not back off still ends the run of good ones that growth needs."""
    amp = AMPConfig(hysteresis=2, growth_interval=3)

    after_strike = trajectory(LossScale(16.0, toy.CPU), [False, False, True, False, False, False], amp)

    assert after_strike == [16.0, 16.0, 16.0, 16.0, 16.0, 32.0]


@given(before=FLAGS, after=FLAGS, hysteresis=st.integers(1, 4))
def test_a_restored_scale_goes_on_exactly(before: list[bool], after: list[bool], hysteresis: int) -> None:
    """Saved and loaded anywhere, in the middle of hysteresis too, the future is the same."""
    amp = AMPConfig(hysteresis=hysteresis, growth_interval=3)
    original, restored = LossScale(1024.0, toy.CPU), LossScale(2.0, toy.CPU)
    trajectory(original, before, amp)

    restored.load_state_dict(original.state_dict())

    assert restored.value.item() == original.value.item()
    assert trajectory(restored, after, amp) == trajectory(original, after, amp)


def test_a_saved_state_is_a_copy() -> None:
    """What was saved does not move with the next window."""
    scale, amp = LossScale(16.0, toy.CPU), AMPConfig()
    saved = scale.state_dict()

    trajectory(scale, [True], amp)

    restored = LossScale(1.0, toy.CPU)
    restored.load_state_dict(saved)
    assert restored.value.item() == 16.0


def test_resetting_forgets_strikes_and_growth() -> None:
    """After a reset the scale behaves as a new one."""
    amp = AMPConfig(hysteresis=2, growth_interval=4)
    used, bad_windows = LossScale(64.0, toy.CPU), [False, False, False, True, False, True]
    trajectory(used, [False, True, False, False, True, True, False, False, False], amp)

    used.reset()

    assert used.value.item() == 64.0
    assert trajectory(used, bad_windows, amp) == trajectory(LossScale(64.0, toy.CPU), bad_windows, amp)


@given(
    scale=st.floats(2.0**-30, 2.0**30),
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5),
)
def test_unscaling_is_torchs_bit_for_bit(scale: float, values: list[float]) -> None:
    """Gradients come out as GradScaler's unscale_ gives them, in place."""
    parameter = torch.nn.Parameter(torch.zeros(len(values)))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", scale)
    scaler.scale(torch.ones(()))
    parameter.grad = torch.tensor(values)
    ours = parameter.grad.clone()

    scaler.unscale_(optimizer)
    found = LossScale(scale, toy.CPU).unscale([ours])

    assert torch.equal(ours, parameter.grad)
    assert found.tolist() == [0.0]


@pytest.mark.parametrize("poison", [float("inf"), float("-inf"), float("nan")])
def test_the_flag_is_exactly_one(poison: float) -> None:
    """However many gradients are bad the flag is 1: two would move a fused optimizer's counter back."""
    gradients = [torch.full((3,), poison), torch.ones(2), torch.full((1,), poison)]

    assert LossScale(8.0, toy.CPU).unscale(gradients).tolist() == [1.0]


def test_no_gradients_are_no_fault() -> None:
    """A window that reached no parameter has nothing to unscale."""
    assert LossScale(8.0, toy.CPU).unscale([]).tolist() == [0.0]


def test_factors_are_live() -> None:
    """Each window moves the scale by the factors that hold then."""
    scale = LossScale(64.0, toy.CPU)

    steps: tuple[tuple[bool, dict[str, Any]], ...] = (
        (True, {"backoff_factor": 0.25}),
        (False, {"growth_factor": 4.0, "growth_interval": 1}),
        (False, {"max_scale": 32.0}),
        (True, {"min_scale": 24.0, "backoff_factor": 0.5}),
    )

    values = [trajectory(scale, [bad], AMPConfig(**factors))[0] for bad, factors in steps]

    assert values == [16.0, 64.0, 32.0, 24.0]


def test_a_lowered_growth_interval_takes_hold() -> None:
    """An operator whose scale is stuck lowers the interval below the good windows so far: it grows at once."""
    scale = LossScale(16.0, toy.CPU)
    trajectory(scale, [False] * 5, AMPConfig(growth_interval=2000))

    assert trajectory(scale, [False], AMPConfig(growth_interval=3)) == [32.0]
