"""Real signals in every state of a real daemon: a reload moves nothing, a stop ends it in its way, the next start goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable

import msgspec
import pytest

from ampd.core import protocol as p
from ampd.failpoints import VARIABLE
from tests.daemon.daemons import Daemon, Job, until


class Case(msgspec.Struct, frozen=True):
    """How a state is reached, and what SIGTERM makes of it."""

    reach: Callable[[Job, Daemon], object]
    code: int
    worker: str = ""
    failpoint: str = ""
    reloads: bool = True


def _is_locked(job: Job, _daemon: Daemon) -> None:
    until("the lock", lambda: '"daemon"' in _text(job))


def _text(job: Job) -> str:
    lock = job.directory / "lock"
    return lock.read_text() if lock.exists() else ""


def _is_saving(job: Job, daemon: Daemon) -> None:
    daemon.runs()
    daemon.signal(signal.SIGTERM)
    until("a save", (job.directory / "saving").exists)


def _is_recovering(_job: Job, daemon: Daemon) -> None:
    daemon.reaches("recovering")


def _is_paused(_job: Job, daemon: Daemon) -> None:
    daemon.runs()
    daemon.ask(p.Pause())


CASES = {
    "start": Case(_is_locked, -signal.SIGTERM, failpoint="start.locked=sleep:600", reloads=False),
    "loading": Case(lambda _, daemon: daemon.hears("worker.spoke"), 0, worker="--hang-loading"),
    "running": Case(lambda _, daemon: daemon.runs(), 0),
    "paused": Case(_is_paused, 0),
    "recovering": Case(_is_recovering, 0, worker="--crash-at 1"),
    "saving": Case(_is_saving, 0, worker="--hold-saves"),
}


def _restart(text: str) -> str:
    return f"backoff_seconds = {text}\nsave_budget_seconds = 20"


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_reload_and_then_a_stop(job: Job, case: Case) -> None:
    """SIGHUP never ends anything, SIGTERM does in order, and what is left is a job that can be started."""
    job.write(restart=_restart("60"))
    if case.failpoint:
        job.environment[VARIABLE] = case.failpoint
    daemon = job.start(worker=case.worker)
    case.reach(job, daemon)

    daemon.signal(signal.SIGHUP)
    if case.reloads:
        assert daemon.hears("config.reloaded")["level"] == "info"
    daemon.signal(signal.SIGTERM)
    (job.directory / "may-save").touch()

    assert daemon.ends() == case.code, daemon.err.read_text()
    assert "Traceback" not in daemon.err.read_text()
    job.environment.pop(VARIABLE, None)
    job.start().runs()


def test_a_stop_is_repeated_without_harm(job: Job) -> None:
    """An impatient service manager: the second signal hurries, those after it change nothing more."""
    daemon = job.start(worker="--save-seconds 0.5")
    daemon.runs()
    for _ in range(5):
        daemon.signal(signal.SIGTERM)

    assert daemon.ends() in (0, 130)
    assert "Traceback" not in daemon.err.read_text()
    job.start().runs()
