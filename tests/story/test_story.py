"""The whole mission once, with real processes: start, change, fall back, scrape, stop, resume."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from ampd.core import protocol as p
from tests.daemon.daemons import Starter, until
from tests.story.forked import Zygote
from tests.story.jobs import DigitsJob, digits_job, metrics_of

FALLBACKS = 'ampd_fp32_fallbacks_total{cause="forward"}'
MANY = 1_000_000  # never reached: on no machine may a job end before it is stopped
STEADY = {"optim": 'lr = 3e-3\nwarmup_windows = 20\nschedule = "constant"'}
"""What does not depend on how many windows there are to come."""


@pytest.fixture(scope="module")
def forked() -> Iterator[Starter]:
    """Daemons that need not load torch: where it is not the point how a process is started."""
    with contextlib.closing(Zygote()) as zygote:
        yield zygote.start


@pytest.mark.timeout(240)
def test_one_job_end_to_end(forked: Starter) -> None:
    """A job is changed, overflows, falls back, is counted, saved, stopped and resumed, as if it had never stopped."""
    with digits_job(windows=MANY) as job:
        job.write(**STEADY)
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

        job.windows = stopped.window + 50
        job.write(**STEADY)
        resumed = job.start()
        ready = resumed.hears("worker.became_ready")
        assert (ready["resumed"], ready["window"], ready["revision"]) == (True, stopped.window, 2)
        assert resumed.ends(120) == 0
        assert f"{job.windows} applied of {job.windows}" in resumed.out.read_text()
        assert_as_if_undisturbed(job, job.windows, forked)


def assert_as_if_undisturbed(job: DigitsJob, windows: int, forked: Starter) -> None:
    """The loss log has every window, and is that of a job that is given the journal and left alone."""
    with digits_job(windows) as undisturbed:
        undisturbed.starter = forked
        undisturbed.write(**STEADY)
        undisturbed.directory.mkdir()
        shutil.copy(job.directory / "journal.jsonl", undisturbed.directory)
        assert undisturbed.start().ends(120) == 0
        assert undisturbed.losses == job.losses
        assert len(job.losses.splitlines()) == windows


@pytest.mark.timeout(240)
def test_a_killed_worker_is_replaced_and_nothing_is_lost(forked: Starter) -> None:
    """A worker that is killed in the middle comes back from its checkpoint, changes included, bit for bit."""
    with digits_job(windows=MANY) as job:
        job.starter = forked
        job.write(**STEADY)
        daemon = job.start()
        daemon.runs(60)
        changed = daemon.ask(p.Set(changes={"dtype": "bfloat16"})).window
        os.kill(int(daemon.said("worker.started")[-1]["pid"]), signal.SIGKILL)
        daemon.hears("worker.became_ready", count=2)
        until("windows after the change", lambda: daemon.status()["window"] > changed + 5)
        stopped = daemon.ask(p.Stop())
        assert daemon.ends(120) == 0

        assert_as_if_undisturbed(job, stopped.window, forked)


@pytest.mark.timeout(240)
def test_a_rollback_goes_back_and_passes_over_the_bad_window(forked: Starter) -> None:
    """With on_bad_window = rollback a window that is bad everywhere is met once, and the job goes on without it."""
    with digits_job(windows=MANY) as job:
        job.starter = forked
        job.write(amp='dtype = "float32"\non_bad_window = "rollback"', checkpoint="every_windows = 20")
        daemon = job.start()
        daemon.runs(30)
        injected = daemon.ask(p.Inject(fault="nan-loss"))
        daemon.hears("worker.became_ready", count=2)
        until("windows after the bad one", lambda: daemon.status()["window"] > injected.window + 5)
        stopped = daemon.ask(p.Stop())
        assert daemon.ends(120) == 0

        assert [event["window"] for event in daemon.said("job.rolled_back")] == [injected.window]
        assert f"{stopped.window - 1} applied" in daemon.out.read_text()
        assert job.losses.count('"skipped":"model"') == 1
