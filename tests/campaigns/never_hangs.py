"""`ampctl` against daemons in every bad state, by both ways in: it ends in time, and says which state it is.

Seven states: dead, starting, stopped (SIGSTOP), with a hung worker, shutting down, with a wrong key, and a black hole.
In each a read or a change is asked with a short timeout. What is measured begins with the first line of the process and
leaves out what the kernel let its main thread wait for a processor (schedstat), so that a busy machine is not taken for a
slow ampctl; the imports of ampctl are in it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ampd.control import keyring
from ampd.core.protocol import Role
from tests.control.keyed import NAMES
from tests.daemon.daemons import ROOT, Daemon, Job
from tests.daemon.remote import give_keys, listen

NAME = "never-hangs"
ROUNDS = 1
GRACE_SECONDS = 0.5
_BACKSTOP_SECONDS = 60.0
_PATIENCE_SECONDS = 10.0
_TIMED = """
import sys, time
def taken():
    with open("/proc/self/schedstat") as file:
        return time.monotonic() - int(file.read().split()[1]) / 1e9
begin = taken()
from ampd.cli.ampctl import cli
try:
    cli(args=sys.argv[1:], prog_name="ampctl")
finally:
    print(f"\\n{taken() - begin}", file=sys.stderr)
"""
READ = ["status"]


class Expected(NamedTuple):
    """How a question ends; `waits` where only the timeout can end it, else it ends at once."""

    code: int
    words: str
    waits: bool = False


_SILENT = Expected(4, "did not speak within", waits=True)
_SWALLOWED = Expected(4, "took no connection within", waits=True)
_UNKNOWN = Expected(7, "--request-id", waits=True)


def case(seed: int, rounds: int = ROUNDS) -> None:
    """Ask in every state, so many times by each way."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        asking = _Asking(Job(Path(home)), draw)
        try:
            for _ in range(rounds):
                for state in (_running, _starting, _shutting_down, _black_hole):
                    state(asking)
        finally:
            asking.job.clean()
    if rounds > ROUNDS:
        for what, took in (("ended at once", asking.at_once), ("waited; after the timeout", asking.late)):
            print(
                f"{NAME}: {len(took)} {what}: {statistics.median(took):.2f} s (median), {max(took):.2f} s (longest)"
            )


class _Asking:
    """One job with keys, and ampctl asking for it; seconds that questions took, or took beyond their timeout."""

    def __init__(self, job: Job, draw: random.Random) -> None:
        self.job = job
        self.draw = draw
        self.at_once: list[float] = []
        self.late: list[float] = []
        self.keys = give_keys(job)
        self.address = listen(job, restart="backoff_seconds = 0.01\nsave_budget_seconds = 0.05")

    @property
    def local(self) -> list[str]:
        return ["--endpoint", str(self.job.home / "rt" / "toy" / "control.sock")]

    def remote(self, address: str = "", *, server: str = "", own: str = "") -> list[str]:
        """The options that reach a daemon by TCP, as its admin where nothing else is said."""
        here = self.keys.directory
        return [
            "--endpoint", address or self.address, "--server-key", server or self.keys.server.public,
            "--key", own or str(here / f"{NAMES[Role.ADMIN]}.key"),
        ]  # fmt: skip

    def both(self, command: Sequence[str], expected: Expected) -> None:
        """Ask by the unix socket and by TCP."""
        self.ask(self.local, command, expected)
        self.ask(self.remote(), command, expected)

    def ask(self, way: Sequence[str], command: Sequence[str], expected: Expected) -> None:
        """Ask once; the exit code, what is said and the time must be right."""
        timeout = round(self.draw.uniform(0.6, 1.0), 2) if expected.waits else _PATIENCE_SECONDS
        arguments = [*way, "--timeout", str(timeout), *command]
        ended = subprocess.run(
            [sys.executable, "-c", _TIMED, *arguments], capture_output=True, text=True, check=False, cwd=ROOT,
            env=os.environ | self.job.environment, timeout=_BACKSTOP_SECONDS,
        )  # fmt: skip
        said, _, took = ended.stderr.rstrip().rpartition("\n")
        assert (ended.returncode, expected.words in said + ended.stdout) == (expected.code, True), (
            f"exit {ended.returncode}, expected {expected}: {arguments}: {said}"
        )
        assert not expected.code or "hint: " in said, f"no hint: {arguments}: {said}"
        late = float(took) - (timeout if expected.waits else 0)
        (self.late if expected.waits else self.at_once).append(late)
        assert late <= GRACE_SECONDS, f"{late:.2f} s late: {arguments}"

    def change(self) -> list[str]:
        """A change to a value that does not hold yet: one that holds is answered without the worker."""
        return ["set", f"optim.lr={self.draw.uniform(0.1, 0.9)}"]

    def some(self) -> list[str]:
        """A read or a change."""
        return self.draw.choice([READ, self.change()])


def _running(asking: _Asking) -> None:
    """A hung worker, wrong keys, a stopped daemon, a dead one."""
    daemon = asking.job.start()
    worker = daemon.runs()
    with _stopped(worker):
        asking.both(READ, Expected(0, "running"))
        asking.both(asking.change(), _UNKNOWN)
    _wrong_keys(asking)
    with _stopped(daemon.pid):
        asking.both(asking.some(), _SILENT)
    _end(daemon)
    asking.both(asking.some(), Expected(3, "nobody listens"))


def _wrong_keys(asking: _Asking) -> None:
    name = f"stranger{asking.draw.randrange(2**32)}"
    keyring.make(asking.keys.directory, name)
    stranger = str(asking.keys.directory / f"{name}.key")
    asking.ask(asking.remote(own=stranger), asking.some(), Expected(4, "does not allow the key"))
    asking.ask(asking.remote(server=keyring.pair().public), asking.some(), Expected(4, "its key is not"))


def _starting(asking: _Asking) -> None:
    daemon = asking.job.start(worker="--hang-loading")
    daemon.hears("worker.spoke")
    asking.both(READ, Expected(0, "starting"))
    asking.both(asking.change(), _UNKNOWN)
    _end(daemon)


def _shutting_down(asking: _Asking) -> None:
    daemon = asking.job.start("--set", "restart.save_budget_seconds=60", worker="--hang-stopping")
    daemon.runs()
    stopping = subprocess.Popen(
        [sys.executable, "-m", "ampd.cli.ampctl", *asking.local, "stop"], cwd=ROOT, stderr=subprocess.DEVNULL,
        env=os.environ | asking.job.environment,
    )  # fmt: skip
    with stopping:
        daemon.reaches("stopping")
        asking.both(READ, Expected(0, "stopping"))
        asking.both(asking.change(), Expected(5, "takes no more commands"))
        _end(daemon)


def _black_hole(asking: _Asking) -> None:
    """A port that swallows packets, and listeners that take a connection and say nothing."""
    with _swallowing() as address:
        asking.ask(asking.remote(address), asking.some(), _SWALLOWED)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        asking.ask(asking.remote(f"tcp://127.0.0.1:{mute.getsockname()[1]}"), asking.some(), _SILENT)
    path = str(asking.job.home / "mute.sock")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(path)
        mute.listen()
        asking.ask(["--endpoint", path], asking.some(), _SILENT)
    Path(path).unlink()


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _swallowing() -> Iterator[str]:
    """A port whose queue is full: the kernel drops whoever comes next without a word."""
    with contextlib.ExitStack() as opened:
        hole = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            caller = opened.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(hole.getsockname())
        yield f"tcp://127.0.0.1:{hole.getsockname()[1]}"


def _end(daemon: Daemon) -> None:
    """kill -9, of its worker too."""
    daemon.clean()
