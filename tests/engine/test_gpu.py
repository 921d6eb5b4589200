"""The oracles of the engine on a CUDA device: the same promises as on the CPU, and that the host never waits.

Skipped, and said so, where torch sees no device. Bit-identity needs deterministic kernels, which `deterministic` sets
for each test here; throughput is no test's business, `make bench` has its own figures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import nn, optim

from ampd.core import messages as m
from ampd.core.activity import Activity
from ampd.engine.assembly import equip
from ampd.engine.breakdown import Breakdown, clock_of
from ampd.engine.device import capability_of
from ampd.engine.optim import can_be_gated, gated_step
from ampd.engine.rewind import Rewind
from ampd.engine.trainer import Trainer
from ampd.engine.window import Window
from ampd.engine.work import work_on
from tests.engine import toy
from tests.engine.reads import HostReads
from tests.plugins.jobs import built

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
CUDA = torch.device("cuda", 0)
CALM: dict[str, Any] = {"dtype": "float16", "init_scale": 128.0, "risky_windows": 0, "enable_tf32": False}


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that give the same bits every time, for the length of a test; cuBLAS wants to be told as well."""
    monkeypatch.setitem(os.environ, "CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Every operation that waits for the device is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def trainer(workload: Any = None, **sections: dict[str, Any]) -> Trainer:
    """A trainer of the toy (or of `workload`) on the device, its generators at a fixed point."""
    chosen = toy.config(device={"deterministic": True}, **sections)
    parts = equip(chosen, workload or toy.Toy(), CUDA, lambda _report: None)
    torch.manual_seed(7)
    return Trainer(chosen, parts, capability_of(CUDA), chosen.job.windows or 100)


def pinned(number: int, workload: Any = None) -> Window:
    """A window in memory that the device can read by itself, as the feed prepares it."""
    window = toy.window(number, workload)
    micro_batches = [
        replace(micro_batch, tensors={k: t.pin_memory() for k, t in micro_batch.tensors.items()})
        for micro_batch in window.micro_batches
    ]
    return replace(window, micro_batches=tuple(micro_batches))


def test_a_fused_optimizer_is_judged_late_by_default() -> None:
    """`replay = auto` means adaptive here, and sync where the optimizer cannot be gated."""
    assert trainer().is_adaptive
    assert not trainer(optim={"fused": False}).is_adaptive


# Not digits: the gradient of AdaptiveMaxPool2d has no deterministic kernel on CUDA.
@pytest.mark.parametrize("name", ["toy", "bytegpt"])
def test_fallback_equals_float32_from_the_start(name: str) -> None:
    """Windows that overflow in float16 end as if they had been true float32, bit for bit."""

    def workload() -> Any:
        return toy.Toy() if name == "toy" else built(name, accumulate=3, dropout=0.3)

    faults: dict[int, m.Fault] = dict.fromkeys(range(5), "overflow")
    sections: dict[str, dict[str, Any]] = {"clip": {"max_norm": 0.1}}
    fell = trainer(workload(), amp={**CALM, "replay": "sync"}, **sections)
    records = toy.run(fell, range(5), faults)
    straight = trainer(workload(), amp={**CALM, "replay": "sync", "dtype": "float32"}, **sections)
    toy.run(straight, range(5))

    assert [r.precision for r in records] == ["float32"] * 5
    assert toy.state_bytes(fell) == toy.state_bytes(straight)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("bad", [set(), {0}, {15}, {3, 4, 5}, set(range(16))], ids=repr)
def test_every_window_is_applied_exactly_once(bad: set[int], dtype: str) -> None:
    """Judged one window late: each is recorded and applied once, and all is finite."""
    subject = trainer(amp={**CALM, "dtype": dtype, "replay": "adaptive"}, clip={"max_norm": 0.5})
    fault: m.Fault = "overflow" if dtype == "float16" else "nan-grad"

    records = toy.run(subject, range(16), dict.fromkeys(bad, fault))

    applied = 16 if dtype == "float16" else 16 - len(bad)
    assert [r.window for r in records] == list(range(16))
    assert subject.ledger.job.applied == applied
    assert {float(e["step"]) for e in subject.parts.optimizer.state.values()} <= {float(applied)}
    assert all(p.isfinite().all() for p in subject.parts.parameters)


@pytest.mark.parametrize("build", [optim.AdamW, optim.SGD, optim.Adagrad])
def test_fused_optimizers_are_gated_on_the_device(build: Any) -> None:
    """With the flag at 1 NaN gradients change nothing at all; with it at 0 a step is the plain step."""

    def stepped(flags: list[float | None]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(300, 200).to(CUDA)
        optimizer = build(model.parameters(), lr=0.1, fused=True)
        assert can_be_gated(optimizer)
        for flag in flags:
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, float("nan") if flag else 0.5)
            if flag is None:
                optimizer.step()
            else:
                gated_step(optimizer, torch.tensor([flag], device=CUDA))
        entries = [list(entry.values()) for entry in optimizer.state.values()]
        return [*model.parameters(), *(v for e in entries for v in e if isinstance(v, torch.Tensor))]

    gated, plain = stepped([None, 0.0, 1.0, 0.0, 1.0]), stepped([None, None, None])

    assert all(torch.equal(a, b) for a, b in zip(gated, plain, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_host_never_waits_in_a_steady_window(dtype: str, request: pytest.FixtureRequest) -> None:
    """Torch's own detector of synchronisation, and ours: clipping, statistics, a rate that changes, all on."""
    subject = trainer(
        amp={**CALM, "dtype": dtype, "replay": "adaptive"},
        clip={"max_norm": 0.1},
        optim={"warmup_windows": 50},
    )
    windows = [pinned(number, subject.parts.workload) for number in range(12)]
    for window in windows[:4]:
        subject.step(window)

    request.getfixturevalue("no_waiting")
    with HostReads() as reads:
        records = [record for window in windows[4:] for record in subject.step(window)]

    assert [record.window for record in records] == list(range(3, 11))
    assert reads.ways == []


def test_a_mark_does_not_wait_for_the_device() -> None:
    """The states of the generators and the buffers are taken while a long kernel is still running."""
    workload = toy.Toy()
    workload.model.to(CUDA)
    rewind = Rewind(workload.model, CUDA, workload)
    rewind.mark()  # whatever a first call sets up
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
    torch.cuda.synchronize()

    # Cycles: about a second, and a mark takes microseconds.
    torch.cuda._sleep(2_000_000_000)  # type: ignore[no-untyped-call]  # torch's own
    done.record()
    rewind.mark()
    was_running = not done.query()  # type: ignore[no-untyped-call]  # torch's own
    torch.cuda.synchronize()

    assert was_running


def test_dropout_repeats_after_a_rewind() -> None:
    """The device's generator is marked and restored: the same mask again, and another one without."""
    workload = toy.Toy()
    workload.model.to(CUDA)
    rewind, ones = Rewind(workload.model, CUDA, workload), torch.ones(1000, device=CUDA)
    mark = rewind.mark()

    first = nn.functional.dropout(ones)
    another = nn.functional.dropout(ones)
    rewind.restore(mark)

    assert torch.equal(nn.functional.dropout(ones), first)
    assert not torch.equal(first, another)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_takes_less_memory(dtype: str) -> None:
    """The peak of a window of the byte transformer, where activations outweigh the weights, against float32's."""

    def peak(precision: str) -> int:
        workload = built("bytegpt", size=64, accumulate=1, context=256, layers=4, width=256, heads=4)
        subject = trainer(workload, amp={**CALM, "dtype": precision, "track_amp_stats": False})
        toy.run(subject, range(2))
        torch.cuda.reset_peak_memory_stats()
        toy.run(subject, range(2, 4))
        return torch.cuda.max_memory_allocated()

    assert peak(dtype) < 0.9 * peak("float32")


def test_the_work_of_a_rank_is_that_of_its_device() -> None:
    """Between events on the stream, read when they have passed."""
    work, x = work_on(CUDA), torch.randn(2048, 2048, device=CUDA)
    for _ in range(3):
        work.begin()
        torch.mm(x, x)
        work.end()
    torch.cuda.synchronize()

    assert work.seconds > 0


def test_the_time_within_a_window_is_the_devices() -> None:
    """Between events on the stream, added up when the next window begins after they have passed."""
    breakdown, x = Breakdown(clock_of(CUDA), every_seconds=0.0), torch.randn(2048, 2048, device=CUDA)
    breakdown.begin()
    breakdown.enter(Activity.FORWARD)
    torch.mm(x, x)
    breakdown.end()
    torch.cuda.synchronize()
    breakdown.begin()

    assert breakdown.sampled.seconds["forward"] > 0
