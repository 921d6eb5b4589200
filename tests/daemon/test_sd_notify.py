"""What systemd hears, on a real datagram socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ampd.core.lifecycle import JobState
from ampd.core.phase import Phase, Standing
from ampd.sd_notify import ServiceManager, sentence
from tests.core.bench import job_view, snapshot
from tests.daemon.daemons import Job


@pytest.fixture
def manager(home: Path) -> Iterator[socket.socket]:
    """The service manager's socket, bound as `notify` in `home`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(home / "notify"))
        listening.setblocking(False)
        yield listening


def _heard(manager: socket.socket) -> list[str]:
    lines = []
    while True:
        try:
            lines.append(manager.recv(4096).decode())
        except BlockingIOError:
            return lines


def _teller(home: Path, **environment: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": str(home / "notify"), **environment})


def test_ready_is_said_once_when_the_worker_is(home: Path, manager: socket.socket) -> None:
    """Not while it loads, and not with every window."""
    view, teller = job_view(), _teller(home)
    teller.tell(view)
    assert _heard(manager) == ["STATUS=starting"]

    view.state = JobState.RUNNING
    view.snapshots[0] = snapshot(3)
    teller.tell(view)
    teller.tell(view)

    assert _heard(manager) == ["READY=1", "STATUS=running: window 3 of 100, bfloat16, loss 2.0000"]


def test_stopping_is_said(home: Path, manager: socket.socket) -> None:
    """So that systemd waits for the checkpoint."""
    view = job_view()
    view.state, view.state_reason = JobState.STOPPING, "SIGTERM"

    _teller(home).tell(view)

    assert _heard(manager) == ["STOPPING=1", "STATUS=stopping: SIGTERM"]


def test_the_watchdog_is_fed_within_the_budget_alone(home: Path, manager: socket.socket) -> None:
    """A worker that hangs starves it, however alive this process is, and one that gets on feeds it again."""
    view, teller = job_view(), _teller(home, WATCHDOG_USEC="2000000")
    assert teller.watchdog_seconds == 2.0
    view.state = JobState.RUNNING
    for seconds, heard in ((4.0, ["WATCHDOG=1"]), (5.5, []), (0.0, ["WATCHDOG=1"])):
        view.standing = Standing(Phase.WINDOW, seconds, 5.0)

        teller.feed_watchdog(view)

        assert _heard(manager) == heard


@pytest.mark.parametrize("standing", [None, Standing(Phase.EVALUATION, 9e9, None)])
def test_what_is_not_judged_feeds_it(home: Path, manager: socket.socket, standing: Standing | None) -> None:
    """No worker, one that is attached, or a judgement that is switched off: nobody is shot for standing still."""
    view, teller = job_view(), _teller(home)
    view.standing = standing

    teller.feed_watchdog(view)

    assert _heard(manager) == ["WATCHDOG=1"]


def test_without_a_manager_nothing_is_sent(manager: socket.socket) -> None:
    """In a terminal there is no NOTIFY_SOCKET."""
    ServiceManager({}).tell(job_view())

    assert _heard(manager) == []


def test_a_manager_that_is_gone_is_no_error(home: Path) -> None:
    """Telling systemd must never end a job."""
    _teller(home).tell(job_view())


def test_an_abstract_address_begins_with_a_nul() -> None:
    """systemd writes it with an @."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel picks an abstract name
        name = listening.getsockname().decode()
        ServiceManager({"NOTIFY_SOCKET": "@" + name[1:]}).tell(job_view())

        assert listening.recv(4096) == b"STATUS=starting"


def test_the_end_has_its_reason() -> None:
    """`systemctl status` of a failed job says why."""
    view = job_view()
    view.snapshots[0] = snapshot(3)
    view.state, view.state_reason = JobState.FAILED, "the worker crashed once"

    assert sentence(view) == "failed: the worker crashed once"


def test_a_daemon_tells_its_life(job: Job, manager: socket.socket) -> None:
    """From start to end, as systemd would hear it."""
    job.environment["NOTIFY_SOCKET"] = str(job.home / "notify")

    assert job.start(windows=3).ends() == 0

    heard = _heard(manager)
    assert heard[0] == "STATUS=starting"
    assert heard.count("READY=1") == 1
    assert heard[-1].startswith("STATUS=completed")
