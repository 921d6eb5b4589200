"""The whole mission once, with real processes: start, change, fall back, scrape, stop, resume."""

from __future__ import annotations

import shutil

import pytest

from ampd.core import protocol as p
from tests.daemon.daemons import until
from tests.story.jobs import digits_job, metrics_of

FALLBACKS = 'ampd_fp32_fallbacks_total{cause="forward"}'


@pytest.mark.timeout(240)
def test_one_job_end_to_end() -> None:
    """A job is changed, overflows, falls back, is counted, saved, stopped and resumed, as if it had never stopped."""
    with digits_job(windows=400) as job:
        daemon = job.start()
        daemon.runs(3)

        changed = daemon.ask(p.Set(changes={"dtype": "float16", "optim.lr": "2e-3"}, reason="the story"))
        assert changed.revision == 2
        assert {"key": "amp.dtype", "old": "float32", "new": "float16"} in changed.result["changes"]
        assert changed.window <= daemon.status()["window"]

        daemon.ask(p.Inject(fault="overflow", windows=3))
        until("three fallbacks on the page", lambda: metrics_of(daemon)[FALLBACKS] == 3.0)
        assert metrics_of(daemon)["ampd_windows_total"] >= 3.0

        stats = daemon.ask(p.Stats()).result
        assert stats["span"]["fp32_fallbacks"] == {"forward": 3}
        daemon.ask(p.Reset(what="stats"))
        until(
            "an empty span",
            lambda: daemon.ask(p.Stats()).result["span"]["fp32_fallbacks"] in ({}, {"forward": 0}),
        )
        assert daemon.ask(p.Stats()).result["job"]["fp32_fallbacks"] == {"forward": 3}
        assert metrics_of(daemon)[FALLBACKS] == 3.0

        saved = daemon.ask(p.Checkpoint()).result
        assert saved["bytes"] > 0
        stopped = daemon.ask(p.Stop())
        assert stopped.result == {"state": "stopped", "saved": True}
        assert daemon.ends(120) == 0
        assert 0 < stopped.window < 400, "the job was stopped in the middle"

        resumed = job.start()
        ready = resumed.hears("worker.became_ready")
        assert (ready["resumed"], ready["window"], ready["revision"]) == (True, stopped.window, 2)
        assert resumed.ends(120) == 0
        assert "400 applied of 400" in resumed.out.read_text()

        with digits_job(windows=400) as never_stopped:
            never_stopped.directory.mkdir()
            shutil.copy(job.directory / "journal.jsonl", never_stopped.directory)
            assert never_stopped.start().ends(120) == 0
            assert never_stopped.losses == job.losses
            assert len(job.losses.splitlines()) == 400


@pytest.mark.timeout(240)
def test_a_killed_worker_is_replaced_and_nothing_is_lost() -> None:
    """A worker that is killed in the middle comes back from its checkpoint, changes included, bit for bit."""
    import os
    import signal

    with digits_job(windows=300) as job:
        daemon = job.start()
        daemon.runs(60)
        daemon.ask(p.Set(changes={"dtype": "bfloat16"}))
        os.kill(int(daemon.said("worker.started")[-1]["pid"]), signal.SIGKILL)
        daemon.hears("worker.became_ready", count=2)
        assert daemon.ends(120) == 0

        with digits_job(windows=300) as never_killed:
            never_killed.directory.mkdir()
            shutil.copy(job.directory / "journal.jsonl", never_killed.directory)
            assert never_killed.start().ends(120) == 0
            assert never_killed.losses == job.losses


@pytest.mark.timeout(240)
def test_a_rollback_goes_back_and_passes_over_the_bad_window() -> None:
    """With on_bad_window = rollback a window that is bad everywhere is met once, and the job completes without it."""
    with digits_job(windows=120) as job:
        job.write(amp='dtype = "float32"\non_bad_window = "rollback"', checkpoint="every_windows = 20")
        daemon = job.start()
        daemon.runs(30)
        injected = daemon.ask(p.Inject(fault="nan-loss"))
        assert daemon.ends(120) == 0

        assert [event["window"] for event in daemon.said("job.rolled_back")] == [injected.window]
        assert "119 applied of 120" in daemon.out.read_text()
        assert job.losses.count('"skipped":"model"') == 1
