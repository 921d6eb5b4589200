"""Operations are counted where they run, in the dtype that they run in, and change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from ampd.core import messages as m
from ampd.core.ledger import Ledger
from ampd.core.precision import Precision
from ampd.engine.flops import FlopMeter
from ampd.engine.ranks import Alone
from ampd.engine.window import Attempt, MicroBatch, Window
from tests.engine.toy import Toy, run, state_bytes, trainer, window

SAMPLES, WIDE, NARROW = 4, 8, 16


def attempt(number: int = 0, precision: Precision = Precision.FLOAT32) -> Attempt:
    """An attempt at a window of one micro-batch."""
    batch = MicroBatch(tensors={"x": torch.ones(SAMPLES, WIDE)}, samples=SAMPLES)
    return Attempt(window=Window(number=number, epoch=0, micro_batches=(batch,)), precision=precision)


def meter(model: nn.Module, ledger: Ledger, told: list[m.Report] | None = None) -> FlopMeter:
    """A meter of a process that is alone."""
    return FlopMeter(model, ledger, Alone(), (told if told is not None else []).append)


def test_a_matrix_product_is_counted_forward_and_backward() -> None:
    """2 * rows * inner * columns, once forward and once for the weights; inputs need no gradient."""
    ledger, model = Ledger(), nn.Linear(WIDE, NARROW, bias=False)

    with meter(model, ledger).attempt(attempt()):
        model(torch.ones(SAMPLES, WIDE)).sum().backward()

    product = 2 * SAMPLES * WIDE * NARROW
    assert ledger.flops["float32"].by_dtype == {"float32": 2 * product}
    assert ledger.flops["float32"].samples == SAMPLES


def test_work_is_counted_in_the_dtype_that_it_ran_in() -> None:
    """Autocast decides operation by operation; what was asked for is not what ran."""
    ledger, model = Ledger(), nn.Linear(WIDE, NARROW)

    with meter(model, ledger).attempt(attempt(precision=Precision.BFLOAT16)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model(torch.ones(SAMPLES, WIDE))
        (low.float() @ torch.ones(NARROW, 1)).sum().backward()

    counted = ledger.flops["bfloat16"].by_dtype
    assert counted.keys() == {"bfloat16", "float32"}
    assert counted["bfloat16"] == 4 * SAMPLES * WIDE * NARROW


def test_attention_on_the_cpu_is_counted() -> None:
    """Its own operation there, for which torch has no formula: two products forward, more backward."""
    ledger = Ledger()
    q, k, v = (torch.ones(2, 2, 16, 8, requires_grad=True) for _ in range(3))

    with meter(nn.Identity(), ledger).attempt(attempt()):
        nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    assert sum(ledger.flops["float32"].by_dtype.values()) > 2 * (2 * 2 * 2 * 16 * 16 * 8)


def test_a_window_that_raises_enters_nothing() -> None:
    """Half a window is no measure of a whole one."""
    ledger = Ledger()

    with pytest.raises(RuntimeError), meter(nn.Identity(), ledger).attempt(attempt()):
        torch.ones(2, 2) @ torch.ones(2, 2)
        raise RuntimeError("out of memory")

    assert ledger.flops == {}


def test_the_first_of_a_precision_and_one_in_a_thousand_are_wanted() -> None:
    """Each look at an operation costs microseconds of Python."""
    ledger = Ledger()
    subject = meter(nn.Identity(), ledger)
    with subject.attempt(attempt()):
        pass

    assert subject.wants(attempt(7, Precision.FLOAT16))
    assert subject.wants(attempt(2000))
    assert not subject.wants(attempt(7))


def test_a_compiled_module_is_left_out() -> None:
    """Looking at it would run it without its compiler."""
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].compile(backend="eager")

    assert not meter(model, Ledger()).wants(attempt())


def test_a_formula_that_fails_is_told_once_and_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry may fail; a window may not fail for its sake."""
    told: list[m.Report] = []
    ledger = Ledger()
    subject = meter(nn.Identity(), ledger, told)

    def broken(*_args: Any, **_kwargs: Any) -> int:
        raise ValueError("no shape")

    monkeypatch.setitem(flop_registry, torch.ops.aten.mm, broken)
    with subject.attempt(attempt()):
        product = torch.ones(2, 3) @ torch.ones(3, 2)

    assert product.tolist() == [[3, 3], [3, 3]]
    assert [report.topic for report in told if isinstance(report, m.Warned)] == ["uncounted-flops"]
    assert ledger.flops == {}
    assert not subject.wants(attempt())


def test_a_counted_run_is_bit_identical_to_one_that_is_not() -> None:
    """The mode calls each operation as it is: dropout, BatchNorm, a replay, in float16."""
    states = []
    for track in (True, False):
        subject = trainer(Toy(), amp={"dtype": "float16", "init_scale": 1024.0, "track_amp_stats": track})
        run(subject, range(6), {2: "overflow"})
        states.append(state_bytes(subject))

    assert states[0] == states[1]


def test_a_trained_window_is_counted_in_the_ledger() -> None:
    """Through the pipeline as it ships: the first window is measured, and tells of all others."""
    subject = trainer(Toy())
    first, second = (subject.step(window(n, subject.parts.workload))[0] for n in range(2))

    assert sum(subject.ledger.work_of(first).values()) > 0
    assert subject.ledger.work_of(second) == subject.ledger.work_of(first)
