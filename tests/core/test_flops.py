"""Work per sample, its place in the ledger, and the peaks that it is held against."""

from __future__ import annotations

import pytest

from ampd.core.flops import PEAKS, Flops, peak_of
from ampd.core.histogram import Distributions
from ampd.core.ledger import Cause, Ledger, WindowRecord
from ampd.core.precision import Capability, Precision
from ampd.telemetry.readings import read
from tests.telemetry import views

COUNTED = Flops(by_dtype={"float16": 800, "float32": 80}, samples=8)


def row(window: int, *, samples: int, skipped: Cause | None = None, at: str = "float16") -> WindowRecord:
    """A window of so many samples."""
    return WindowRecord(
        window=window, epoch=0, loss=1.0, precision=Precision(at), first=Precision.FLOAT16, lr=1e-3, grad_norm=1.0,
        samples=samples, skipped=skipped,
    )  # fmt: skip


def test_work_is_taken_per_sample() -> None:
    """The last batch of an epoch is smaller than the one that was counted."""
    assert COUNTED.of(2) == {"float16": 200.0, "float32": 20.0}


def test_only_what_was_applied_and_counted_is_work() -> None:
    """A window that was skipped did no useful work, and one whose precision nobody counted is not guessed."""
    ledger = Ledger(flops={"float16": COUNTED})

    assert ledger.work_of(row(0, samples=4)) == {"float16": 400.0, "float32": 40.0}
    assert ledger.work_of(row(2, samples=8, skipped=Cause.DATA)) == {}
    assert ledger.work_of(row(3, samples=8, at="float32")) == {}


def test_work_adds_up_over_windows_and_workers() -> None:
    """The counter on the page goes on over a restart, and a pushed copy is not changed by what comes later."""
    first, second = Distributions(), Distributions()
    first.add_work({"float16": 3.0})
    pushed = first.copy()
    first.add_work({"float16": 4.0, "float32": 1.0})
    second.add_work({"float32": 2.0, "float64": 5.0})

    assert pushed.flops == {"float16": 3.0}
    assert first.plus(second).flops == {"float16": 7.0, "float32": 3.0, "float64": 5.0}


@pytest.mark.parametrize(
    ("precision", "tf32", "expected"),
    [
        (Precision.BFLOAT16, True, 312e12),
        (Precision.FLOAT16, False, 312e12),
        (Precision.FLOAT32, True, 156e12),
        (Precision.FLOAT32, False, 19.5e12),
    ],
)
def test_a_peak_is_that_of_the_precision(precision: Precision, tf32: bool, expected: float) -> None:
    """A job in float32 that is held against the peak of bfloat16 would look sixteen times worse than it is."""
    assert peak_of("NVIDIA A100-SXM4-80GB", precision, allows_tf32=tf32) == expected


@pytest.mark.parametrize(
    "device", ["CPU", "", "NVIDIA A10G", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "NVIDIA H100"]
)
def test_a_device_that_is_not_in_the_table_has_no_peak(device: str) -> None:
    """The nearest name may be another chip, or a seventh of one."""
    assert peak_of(device, Precision.BFLOAT16, allows_tf32=True) is None


def test_no_device_is_faster_in_a_wider_precision() -> None:
    """A slip in the table would show here."""
    assert all(peak.half > peak.tf32 >= peak.single > 0 for peak in PEAKS.values())


def test_the_page_has_the_peak_of_all_ranks() -> None:
    """Utilisation is of the whole job; where the device is not known there is none to be drawn."""
    known = Capability(device="Tesla T4", native=(Precision.FLOAT16,))

    found = read(views.running(ready=views.ready(world=4, capability=known)))

    assert found["ampd_peak_flops_per_second"] == 4 * 65e12
    assert read(views.running())["ampd_peak_flops_per_second"] is None
    assert read(views.starting())["ampd_peak_flops_per_second"] is None


def test_the_page_has_the_work_of_all_workers() -> None:
    """By dtype, as the loop has counted it."""
    view = views.running(snapshots={0: views.snapshot(distributions=Distributions(flops={"float16": 5.0}))})
    view.past_distributions = Distributions(flops={"float16": 7.0, "float64": 1.0})

    assert read(view)["ampd_model_flops_total"] == {"float16": 12.0, "float64": 1.0}
