"""The canonical line: how the whole job is doing, once per interval."""

from __future__ import annotations

import json

import msgspec

from ampd.core.ledger import Counts
from ampd.telemetry.canonical import Mark, canonical
from tests.telemetry import views

NOW = views.STARTED + 100


def test_the_line_says_where_the_job_is_and_what_precision_does() -> None:
    """Progress, learning, precision, trouble and what a crash would lose."""
    fields = canonical(views.running(), 0.0)

    expected = {
        "state": "running", "window": 400, "total_windows": 1200, "epoch": 1, "loss": 1.625, "precision": "float16",
        "scale": 32768.0, "lr": 0.001, "fallbacks": 5, "skips": 4, "quarantined": 1, "checkpoint_window": 390,
    }  # fmt: skip
    assert fields.items() >= expected.items()


def test_throughput_is_that_since_the_line_before() -> None:
    """A line after a slow hour shows the speed of now."""
    view = views.running()
    last = Mark.of(view, NOW)
    view.snapshots = {0: views.snapshot(counts=Counts(windows=450))}

    assert Mark.of(view, NOW + 10).rate_since(last) == 5.0


def test_the_line_says_how_fast_that_is() -> None:
    """To a thousandth of a window a second."""
    assert canonical(views.running(), 12.34567)["windows_per_second"] == 12.346


def test_throughput_does_not_run_backwards_over_a_restart() -> None:
    """The next worker begins at an earlier window; what was run still counts."""
    view = views.running()
    last = Mark.of(view, NOW)
    view.past, view.snapshots = views.COUNTS, {0: views.snapshot(window=395, counts=Counts(windows=5))}

    assert Mark.of(view, NOW + 1).rate_since(last) == 5.0


def test_two_lines_at_one_time_have_no_throughput() -> None:
    """No division by nothing."""
    view = views.running()

    assert Mark.of(view, NOW).rate_since(Mark.of(view, NOW)) == 0.0


def test_what_is_not_known_yet_is_null_in_the_log() -> None:
    """Before the worker speaks there is a line too, and it is JSON."""
    fields = json.loads(msgspec.json.encode(canonical(views.starting(), 0.0)))

    assert fields["state"] == "starting"
    assert fields["loss"] is fields["precision"] is fields["scale"] is None
