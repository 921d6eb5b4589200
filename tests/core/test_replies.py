"""Results as plain data: the fields that `ampctl --json` promises, and None for what nobody knows."""

from __future__ import annotations

import msgspec

from ampd.core import messages as m
from ampd.core import replies
from ampd.core.ledger import Counts, Span
from ampd.core.observed import observe
from ampd.core.rate import Rate
from tests.core.bench import CHOICE, job_config, job_view, ready, snapshot

STATUS = {
    "name", "state", "state_reason", "directory", "boot", "pid", "http", "endpoint", "started", "uptime_seconds",
    "window", "total_windows", "epoch", "revision", "precision", "precision_reason", "scale", "loss", "best_loss",
    "grad_norm", "lr", "windows_per_second", "samples_per_second", "windows", "applied", "skipped", "trial", "fp32_fallbacks",
    "restarts", "standing", "node", "leader", "memory", "checkpoint", "device", "parameters", "resumed", "message", "recent_events",
}  # fmt: skip


def test_status_has_exactly_its_fields() -> None:
    """A script reads these; one that is missing or new is a change of the protocol."""
    assert set(replies.status(job_view(), Rate(), 1010.0)) == STATUS


def test_status_knows_nothing_before_the_worker_does() -> None:
    """Unknown figures are None, so that nobody takes them for measured zeros."""
    view = job_view()
    view.spend(10.0)
    status = replies.status(view, Rate(), 1010.0)

    unknown = {name for name, value in status.items() if value is None}
    assert unknown >= {
        "total_windows",
        "loss",
        "lr",
        "precision",
        "device",
        "checkpoint",
        "windows_per_second",
    }
    assert status["uptime_seconds"] == 10.0


def test_status_of_a_running_job() -> None:
    """Each figure comes from where it is true: the worker's Ready, its last snapshot, its last checkpoint."""
    view = job_view()
    observe(view, 0, ready(job_config()), 1001.0)
    observe(view, 0, snapshot(30), 1002.0)
    observe(view, 0, m.Saved(window=20, path="ckpt-20", bytes=1, seconds=1, stall_seconds=0), 1003.0)

    status = replies.status(view, Rate(), 1010.0)

    assert (status["window"], status["windows"], status["device"]) == (30, 30, "cpu")
    assert (status["precision"], status["precision_reason"]) == ("bfloat16", CHOICE.reason)
    assert status["checkpoint"] == {"window": 20, "path": "ckpt-20", "age_seconds": 7.0}


def test_a_clock_set_back_makes_no_negative_times() -> None:
    """Ages are never below zero."""
    view = job_view()
    observe(view, 0, m.Saved(window=1, path="p", bytes=1, seconds=1, stall_seconds=0), 2000.0)

    status = replies.status(view, Rate(), 0.0)

    assert status["checkpoint"]["age_seconds"] == 0.0


def test_all_values_are_json() -> None:
    """Every key of the job file, with its unit, bounds and doc, survives the wire."""
    result = replies.values(job_view(), ())

    assert msgspec.json.decode(msgspec.json.encode(result))["values"]["amp.dtype"] == "auto"
    assert set(result["values"]) == set(result["keys"])
    assert result["keys"]["batch.size"]["live"] is False


def test_statistics_say_what_was_left_out() -> None:
    """Of the job and of the span, with the ratio and the windows whose loss was not finite."""
    view = job_view()
    counts = Counts(windows=4, applied=4, fp32_fallbacks={"scale": 1})
    spans = {"span_scale": Span(count=2, total=6.0, least=2.0, greatest=4.0), "span_loss": Span(left_out=3)}
    view.snapshots[0] = msgspec.structs.replace(snapshot(4), job=counts, span=counts, **spans)

    result = replies.stats(view)

    assert isinstance(result, dict)
    assert result["job"]["fallback_ratio"] == 0.25
    assert result["scale"] == {"min": 2.0, "mean": 3.0, "max": 4.0}
    assert result["loss"] == {"mean": None, "left_out": 3}
    assert result["window_seconds"] == {}


def test_the_best_loss_is_the_least_finite_one() -> None:
    """NaN is neither best nor in the way of a later best."""
    view = job_view()
    for loss in (float("nan"), 3.0, 2.0, 2.5, float("inf")):
        observe(view, 0, m.Evaluated(window=1, figures={"loss": loss}, seconds=1), 1001.0)

    assert view.best_loss == 2.0


def test_progress_is_a_window_that_moved() -> None:
    """A snapshot of the same window is no progress."""
    view = job_view()
    for now, window in ((1001.0, 1), (1002.0, 2), (1003.0, 2)):
        observe(view, 0, snapshot(window), now)

    assert view.last_progress == 1002.0
