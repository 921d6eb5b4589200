"""The guard in whole windows: nothing that is not finite reaches a weight, and a run without faults pays nothing for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from ampd.core import messages as m
from ampd.engine.trainer import Trainer
from ampd.engine.window import MicroBatch
from tests.engine import toy
from tests.engine.reads import HostReads
from tests.engine.rings import WHOLE_RUNS
from tests.engine.runs import Run, act_at

PRECISIONS = ["float16", "bfloat16", "float32"]
FAULTS: list[m.Fault] = ["overflow", "nan-loss", "nan-grad"]
CALM = {"dtype": "float16", "init_scale": 128.0, "replay": "sync"}


def finite_weights(subject: Trainer) -> bool:
    """Whether every weight and every floating tensor of the optimizer's state is finite."""
    state = subject.parts.optimizer.state_dict()["state"].values()
    tensors = [
        *subject.parts.parameters,
        *(v for entry in state for v in entry.values() if isinstance(v, Tensor)),
    ]
    return all(bool(t.isfinite().all()) for t in tensors)


class Spoiled(toy.Toy):
    """The toy with `factor` times its inputs in some windows: 1e5 overflows float16 in the first layer, inf spoils all."""

    def __init__(self, windows: set[int], factor: float) -> None:
        super().__init__()
        self._spoiled, self._factor = windows, factor

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The toy's windows, some of them spoiled in their second micro-batch."""
        for position, window in enumerate(super().windows(epoch, start), start):
            if position in self._spoiled:
                first, second, *others = window
                tensors = {**second.tensors, "x": second.tensors["x"] * self._factor}
                window = (first, replace(second, tensors=tensors), *others)
            yield window


@pytest.mark.parametrize("fault", ["nan-grad", "nan-loss"])
def test_two_hundred_bad_windows_do_no_harm(fault: m.Fault) -> None:
    """The scale stops at its floor, and clean windows after them train on with finite weights."""
    subject = toy.trainer(toy.Toy(micro_batches=1, width=2), amp={"dtype": "float16", "replay": "sync"})
    before = toy.state_bytes(subject)

    bad = toy.run(subject, range(200), dict.fromkeys(range(200), fault))
    untouched = toy.state_bytes(subject) == before
    clean = toy.run(subject, range(200, 210))

    assert {record.skipped for record in bad} == {"model"}
    assert untouched
    assert [record.skipped for record in clean] == [None] * 10
    assert min(record.scale or 0.0 for record in bad + clean) == 1.0
    assert finite_weights(subject)


def test_a_scale_that_vanishes_does_no_harm() -> None:
    """With a floor so low that 1/scale is infinite, clean windows are not taken for finite: they fall back."""
    subject = toy.trainer(
        amp={"dtype": "float16", "init_scale": 2.0**-140, "min_scale": 2.0**-145, "replay": "sync"}
    )

    records = toy.run(subject, range(10), dict.fromkeys(range(5), "nan-grad"))

    assert finite_weights(subject)
    assert [record.precision for record in records[5:]] == ["float32"] * 5


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("term", [math.inf, -math.inf, math.nan])
def test_a_bad_loss_with_good_gradients_is_not_applied(dtype: str, term: float) -> None:
    """A detached or constant term that is not finite leaves gradients fine; the loss is judged too."""

    class Offset(toy.Toy):
        def loss(self, micro_batch: MicroBatch) -> Tensor:
            return super().loss(micro_batch) + torch.tensor(term)

    subject = toy.trainer(Offset(), amp={**CALM, "dtype": dtype})
    before = toy.state_bytes(subject)

    (record,) = toy.run(subject, range(1))

    assert (record.skipped, math.isfinite(record.grad_norm)) == ("model", True)
    assert toy.state_bytes(subject) == before


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("optimizer", [{"fused": True}, {"fused": False}, {"name": "sgd"}])
def test_a_bad_batch_leaves_weights_untouched(dtype: str, optimizer: dict[str, Any]) -> None:
    """One infinite input in one micro-batch: weights, buffers and optimizer state stay, in every precision."""
    subject = toy.trainer(Spoiled({3}, math.inf), amp={**CALM, "dtype": dtype}, optim=optimizer)
    toy.run(subject, range(3))
    before = toy.state_bytes(subject)

    (record,) = toy.run(subject, range(3, 4))

    assert record.skipped == "data"
    assert toy.state_bytes(subject) == before


@pytest.mark.parametrize("replay", ["sync", "adaptive"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("factor", [1e5, math.inf])
@pytest.mark.parametrize("fallback", [True, False])
def test_evaluation_is_finite_after_any_overflow(
    dtype: str, factor: float, fallback: bool, replay: str
) -> None:
    """BatchNorm's running statistics never keep what a bad attempt made of them, whenever it is judged."""
    amp = {**CALM, "dtype": dtype, "enable_fallback_to_fp32": fallback, "replay": replay, "risky_windows": 0}
    subject = toy.trainer(Spoiled({1}, factor), amp=amp)

    toy.run(subject, range(4))

    assert math.isfinite(subject.evaluate()["loss"])
    assert all(bool(b.isfinite().all()) for b in subject.parts.model.buffers())


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_buffers_are_judged_too(dtype: str) -> None:
    """Inputs of 1e30 have an infinite variance, which BatchNorm keeps: no checkpoint could be saved ever after."""
    subject = toy.trainer(Spoiled({1}, 1e30), amp={**CALM, "dtype": dtype})

    toy.run(subject, range(3))

    assert all(bool(b.isfinite().all()) for b in subject.parts.model.buffers())


def test_a_real_overflow_falls_back_and_is_applied() -> None:
    """Inputs beyond 65504: float16 cannot, float32 can, and the batch is not lost."""
    subject = toy.trainer(Spoiled({1}, 1e5), amp=CALM)

    records = toy.run(subject, range(3))

    assert [(r.precision, r.skipped) for r in records] == [
        ("float16", None),
        ("float32", None),
        ("float16", None),
    ]
    assert subject.ledger.job.fp32_fallbacks == {"forward": 1}


@settings(WHOLE_RUNS, max_examples=30)
@given(
    faults=st.dictionaries(st.integers(0, 11), st.sampled_from(FAULTS)),
    dtype=st.sampled_from(PRECISIONS),
    ladder=st.sampled_from(
        [["float32"], ["retry", "float32"], ["bfloat16"], ["retry", "bfloat16", "float32"]]
    ),
    replay=st.sampled_from(["sync", "adaptive"]),
    hysteresis=st.integers(1, 3),
)
@example(
    faults=dict.fromkeys(range(12), "nan-grad"),
    dtype="float16",
    ladder=["float32"],
    replay="adaptive",
    hysteresis=1,
)
def test_whatever_goes_wrong_the_books_balance(
    faults: dict[int, m.Fault], dtype: str, ladder: list[str], replay: str, hysteresis: int
) -> None:
    """Every window is recorded once, applied or skipped; weights are finite and the model can be evaluated."""
    amp = {
        **CALM,
        "dtype": dtype,
        "ladder": ladder,
        "replay": replay,
        "risky_windows": 0,
        "hysteresis": hysteresis,
    }
    subject = toy.trainer(toy.Toy(micro_batches=2, width=4), amp=amp)

    records = toy.run(subject, range(12), faults)

    counts = subject.ledger.job
    assert counts.is_balanced
    assert [record.window for record in records] == list(range(12))
    assert {r.window for r in records if r.skipped} <= {
        w for w, f in faults.items() if f != "overflow" or "float32" not in ladder
    }
    assert {w for w, f in faults.items() if f != "overflow"} <= {r.window for r in records if r.skipped}
    assert finite_weights(subject)
    assert math.isfinite(subject.evaluate()["loss"])


@WHOLE_RUNS
@given(
    faults=st.dictionaries(st.integers(0, 9), st.sampled_from(FAULTS)), name=st.sampled_from(["adamw", "sgd"])
)
def test_fused_and_plain_optimizers_agree(faults: dict[int, m.Fault], name: str) -> None:
    """The same verdicts and the same ledger, and weights that differ by rounding only (a lost update would be 1e-4)."""
    outcomes = []
    for fused in (True, False):
        subject = toy.trainer(amp=CALM, optim={"name": name, "fused": fused, "lr": 1e-4, "eps": 1e-3})
        records = toy.run(subject, range(10), faults)
        story = [(r.window, r.precision, r.replays, r.skipped, r.scale, r.lr) for r in records]
        outcomes.append((story, subject.ledger.job, subject.parts.parameters))

    (fused_story, fused_counts, ours), (plain_story, plain_counts, theirs) = outcomes
    assert fused_story == plain_story
    assert fused_counts == plain_counts
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def steady(**sections: dict[str, Any]) -> Trainer:
    """A trainer that has begun: optimizer state and buffers of every kind are there."""
    subject = toy.trainer(clip={"max_norm": 0.1}, **sections)
    toy.run(subject, range(3))
    return subject


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_good_window_costs_one_read(dtype: str) -> None:
    """In sync: losses, norm and scale in one go, and nothing else on the way, clipping and statistics on."""
    subject = steady(amp={**CALM, "dtype": dtype})
    window = toy.window(3, subject.parts.workload)

    with HostReads() as reads:
        (record,) = subject.step(window)

    assert reads.ways == ["tolist"]
    assert record.clipped


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_good_window_costs_no_read_where_it_is_judged_late(dtype: str) -> None:
    """In adaptive: the figures travel by themselves, and the next window finds them on the host."""
    subject = steady(amp={**CALM, "dtype": dtype, "replay": "adaptive", "risky_windows": 0})
    windows = [toy.window(n, subject.parts.workload) for n in range(3, 9)]
    subject.step(windows[0])  # makes the slots that figures travel in

    with HostReads() as reads:
        records = [record for window in windows[1:] for record in subject.step(window)]

    assert reads.ways == []
    assert [record.window for record in records] == [3, 4, 5, 6, 7]


def test_a_fallback_costs_one_read_an_attempt() -> None:
    """A window that is replayed once is judged twice."""
    subject = steady(amp=CALM)
    subject.parts.injector.arm("overflow", 1)
    window = toy.window(3, subject.parts.workload)

    with HostReads() as reads:
        subject.step(window)

    assert reads.ways == ["tolist", "tolist"]


def test_other_precisions_keep_the_scale_parked() -> None:
    """float16 -> bfloat16 -> float16 goes on where it was, growth and all."""
    subject = toy.trainer(amp={**CALM, "growth_interval": 4})
    scales = []

    for number, dtype in enumerate(["float16"] * 3 + ["bfloat16"] * 5 + ["float32"] + ["float16"] * 3):
        subject.configure(toy.config(amp={**CALM, "growth_interval": 4, "dtype": dtype}))
        scales += [record.scale for record in toy.run(subject, range(number, number + 1), {1: "nan-grad"})]

    assert scales == [128.0, 128.0, 64.0, *[None] * 6, 64.0, 64.0, 64.0][: len(scales)]


def test_a_bad_window_backs_off_once_however_many_rungs() -> None:
    """Four attempts, one step down."""
    subject = toy.trainer(amp={**CALM, "ladder": ["retry", "bfloat16", "float32"]})

    records = toy.run(subject, range(2), {0: "nan-grad"})

    assert len(records[0].replays) == 3
    assert [record.scale for record in records] == [128.0, 64.0]


class Remembering(toy.Toy):
    """A toy with state of its own: the last loss that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(())

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The toy's loss, remembered."""
        loss = super().loss(micro_batch)
        self.last = loss.detach().float()
        return loss

    def capture(self) -> dict[str, Any]:
        """A copy of what is remembered."""
        return {"last": self.last.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to it."""
        self.last = state["last"].clone()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_skipped_window_leaves_no_trace_in_the_workload(dtype: str) -> None:
    """What `capture` holds goes back with the buffers, or every checkpoint after it would be refused."""
    workload = Remembering()
    workload.windows = Spoiled({2}, math.nan).windows  # type: ignore[method-assign]  # the same data, one window spoiled
    subject = toy.trainer(workload, amp={**CALM, "dtype": dtype})
    toy.run(subject, range(2))
    before = workload.last.item()

    (record,) = toy.run(subject, range(2, 3))

    assert record.skipped == "data"
    assert workload.last.item() == before


def test_a_limit_that_is_lowered_acts_where_windows_are_judged_late(tmp_path: Any) -> None:
    """Policy changes the dtype between windows while one is pending: it is settled first."""
    amp = {**CALM, "replay": "adaptive", "risky_windows": 0, "on_fallback_limit": "raise_dtype"}
    schedule = [
        act_at(1, m.Inject(fault="overflow", windows=2), 1),
        act_at(4, m.Configure(changes={"amp.max_fp32_fallbacks": 1}), 2),
    ]

    run = Run(tmp_path, job={"windows": 8}, amp=amp, schedule=schedule)

    finished = run.finish()

    assert finished is not None and finished.result == "completed"
    assert [a.applied.author for a in run.said(m.Applied)] == ["", "", "policy"]
