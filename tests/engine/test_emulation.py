"""What is said about a precision that the device only emulates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ampd.core import messages as m
from ampd.core.precision import Capability, Choice, Precision
from ampd.engine import job
from ampd.engine.emulation import Emulation
from tests.engine import toy
from tests.engine.runs import Run, act_at

BOTH_EMULATED = Capability(device="old", emulated=(Precision.BFLOAT16, Precision.FLOAT16), native=())


def emulated(precision: Precision) -> Choice:
    return Choice(precision=precision, reason=f"old emulates {precision.value}", is_native=False)


def said_of(choices: Sequence[Choice]) -> list[str]:
    """What one run says of them, in turn."""
    reports: list[m.Report] = []
    emulation = Emulation(toy.CPU, reports.append)
    for choice in choices:
        emulation.warn(choice)
    return [report.message for report in reports if isinstance(report, m.Warned)]


def test_the_price_is_measured() -> None:
    """The warning has the reason of the choice and a factor."""
    [message] = said_of([emulated(Precision.FLOAT16)])

    assert message.startswith("old emulates float16: a matrix product takes ")
    assert float(message.split(" takes ")[1].split(" times ")[0]) >= 0.0


def test_each_precision_is_spoken_of_once() -> None:
    """Going back and forth between two of them warns twice in all."""
    there_and_back = [emulated(Precision.FLOAT16), emulated(Precision.BFLOAT16)] * 3

    assert len(said_of(there_and_back)) == 2


def test_a_native_precision_is_not_spoken_of() -> None:
    """Nothing is measured, and nothing said."""
    assert said_of([Choice(precision=Precision.BFLOAT16, reason="native")]) == []


@pytest.fixture
def old_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without a low precision of its own, whatever this one has."""
    monkeypatch.setattr(job, "capability_of", lambda _device: BOTH_EMULATED)


@pytest.mark.usefixtures("old_device")
def test_a_start_in_an_emulated_precision_is_warned_of(tmp_path: Path) -> None:
    """The job file names it, so the run begins with the warning."""
    run = Run(tmp_path, amp={"dtype": "float16"}, job={"windows": 2})
    run.finish()

    assert [w.topic for w in run.said(m.Warned)] == ["emulated-dtype"]


@pytest.mark.usefixtures("old_device")
def test_a_change_to_an_emulated_precision_is_warned_of(tmp_path: Path) -> None:
    """A live change costs as much as a start, and is told as much."""
    schedule = [act_at(2, m.Configure(changes={"amp.dtype": "bfloat16"}))]
    run = Run(tmp_path, schedule=schedule, amp={"dtype": "float32"}, job={"windows": 4})
    run.finish()

    assert ["bfloat16" in w.message or "old" in w.message for w in run.said(m.Warned)] == [True]
