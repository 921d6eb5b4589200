"""Real workers that hang in every way that a watchdog inside them would miss, and slow ones that must be left alone."""

from __future__ import annotations

import pytest

from tests.daemon.daemons import Daemon
from tests.story import hangs
from tests.story.jobs import digits_job

LATE_SECONDS = 10.0
"""Far from the budget that would hold by default, whatever else the machine does; the campaign has the promise, one second."""


@pytest.mark.timeout(240)
def test_every_hang_is_found_and_the_run_is_exact() -> None:
    """One job hangs four times: told in time, with stacks where there can be some, restarted, and exact in the end."""
    with digits_job(windows=160) as job, digits_job(windows=160) as whole:
        hangs.write(job)
        daemon = hangs.start(job, hang=["loop@20", "gil@30", "stop@25", "loader@30"])
        assert daemon.ends(180) == 0, daemon.err.read_text()

        late = hangs.lateness(job, daemon)
        assert max(late) <= LATE_SECONDS, late
        assert [event["phase"] for event in daemon.said("worker.hung")] == ["window"] * 4
        _check_stacks(daemon)
        assert "completed" in daemon.out.read_text()
        hangs.check_exact(job, whole)


def _check_stacks(daemon: Daemon) -> None:
    """Where the interpreter's handler could run, the frame that hangs is in the file; a stopped process is said."""
    by_order = daemon.said("worker.hung")
    without = [event for event in by_order if not event.get("stacks")]
    assert [event["note"].rpartition(" is ")[2] for event in without] == ["stopped (SIGSTOP, or a debugger)"]
    saved = (daemon.home / "run" / "stacks.log").read_text()
    for frame in ("in spin", "in hold_the_interpreter", "in windows"):
        assert frame in saved, f"no {frame} in {saved}"


@pytest.mark.timeout(120)
def test_what_is_slow_and_says_so_is_left_alone() -> None:
    """A start, a first window and evaluations that take longer than a window may, the interpreter held all the while."""
    with digits_job(windows=50) as job:
        hangs.write(job)
        seconds = int(hangs.BUDGET_SECONDS) + 1
        daemon = hangs.start(job, slow=[f"{what}@{seconds}" for what in ("init", "compile", "evaluation")])

        assert daemon.ends(60) == 0
        assert daemon.said("worker.hung") == []
        assert len(daemon.said("worker.started")) == 1
        assert len(daemon.said("job.evaluated")) == 2
