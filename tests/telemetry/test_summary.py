"""The summary at the end of a run."""

from __future__ import annotations

import pytest

from ampd.core.ledger import Span
from ampd.core.lifecycle import JobState
from ampd.core.messages import Finished
from ampd.telemetry.summary import rows, summary, tally
from tests.telemetry import views


def test_a_finished_run_is_summed_up_in_aligned_lines() -> None:
    """Loss, held-out loss, windows, fallbacks and skips by cause, scale, throughput, memory, checkpoint, directory."""
    result = Finished(result="completed", window=1200, message="all windows are done")

    text = summary(views.running(state=JobState.COMPLETED, result=result))

    assert text.splitlines() == [
        "job             bytes: completed (all windows are done)",
        "windows         395 applied of 1200, skipped 4 (data 3, model 1), quarantined 1",
        "loss            1.6250 (min 1.5000, mean 2.5000, max 3.5000 over 2 windows)",
        "held-out        loss 1.7500 before window 400; best loss 1.7000",
        "fp32 fallbacks  5 (forward 3, scale 2)",
        "precision       float16 (named in the configuration)",
        "loss scale      32768 (min 1024, mean 33280, max 65536 over 2 windows)",
        "throughput      4.00 windows/s, 128 samples/s, 16384 tokens/s over 100.0 s of training",
        "memory          peak 537 MB, a micro-batch keeps 2 MB less than in float32 (float32 window)",
        "checkpoint      window 390, 22 MB in 0.50 s (the loop waited 0.12 s), runs/bytes/checkpoints/390",
        "directory       runs/bytes",
    ]


def test_a_run_that_never_began_is_summed_up_too() -> None:
    """No figure is made up where none was measured."""
    facts = dict(rows(views.starting()))

    assert facts["loss"] == "none yet"
    assert facts["precision"] == "not chosen yet"
    assert facts["throughput"] == "none yet"
    assert facts["memory"] == "not measured"


def test_a_mean_loss_says_how_many_windows_it_left_out() -> None:
    """NaN is counted, never averaged in silence."""
    span_loss = Span(count=8, total=16.0, least=1.0, greatest=3.0, left_out=2)

    facts = dict(rows(views.running(snapshots={0: views.snapshot(span_loss=span_loss, loss=None)})))

    assert (
        facts["loss"]
        == "not finite (min 1.0000, mean 2.0000, max 3.0000 over 8 windows), 2 not finite left out"
    )


def test_a_resumed_run_counts_the_whole_job_and_its_own_speed() -> None:
    """Windows are the job's; throughput is of the windows that this daemon ran."""
    job = views.COUNTS.plus(views.COUNTS)

    facts = dict(rows(views.running(snapshots={0: views.snapshot(job=job)})))

    assert facts["windows"].startswith("790 applied")
    assert facts["throughput"].startswith("4.00 windows/s")


def test_a_resumed_run_that_saved_nothing_says_where_it_came_from() -> None:
    """The newest checkpoint is then the one before."""
    view = views.running(last_saved=None, ready=views.ready(window=300, resumed=True))

    assert dict(rows(view))["checkpoint"] == "none by this daemon; resumed from window 300"


@pytest.mark.parametrize(
    ("counts", "text"), [({}, "0"), ({"data": 0}, "0"), ({"a": 1, "b": 3}, "4 (b 3, a 1)")]
)
def test_a_tally_shows_its_sum_and_the_greatest_part_first(counts: dict[str, int], text: str) -> None:
    """Causes without a window are not worth their ink."""
    assert tally(counts) == text
