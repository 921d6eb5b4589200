"""Real daemons with a fake worker: started as processes, asked over their sockets, ended with real signals."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ampd.control.client import Client
from ampd.core import protocol as p
from ampd.errors import CommandError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FAKE = f"{shlex.quote(sys.executable)} {shlex.quote(str(HERE / 'fake_worker.py'))}"
PATIENCE_SECONDS = 60.0
"""For a busy machine; whoever waits as long has found a failure."""


def until(what: str, is_true: Callable[[], object], *, patience: float | None = None) -> None:
    """Poll until something holds; an AssertionError that says what did not."""
    seconds = patience or PATIENCE_SECONDS
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_worker_of(pid: int, directory: Path) -> bool:
    """Whether a process has the lock of that job, and is not whoever has its number by now."""
    try:
        return any(fd.samefile(directory / "lock") for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


class Process(Protocol):
    """What is asked of a daemon's process; `subprocess.Popen` is one."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: signal.Signals) -> None: ...
    def kill(self) -> None: ...


Starter = Callable[[Sequence[str], Mapping[str, str], Path, Path], Process]
"""Starts `ampd`: its arguments, what is added to its environment, files for its standard output and error."""


def _execute(
    worker: str, arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path
) -> Process:
    command = [sys.executable, "-m", "tests.daemon.start", worker, *arguments]
    with out.open("wb") as output, err.open("wb") as errors:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=errors, env=os.environ | environment, stdin=subprocess.DEVNULL
        )  # fmt: skip


class Daemon:
    """One `ampd start` as a process of its own, with its standard streams in files."""

    def __init__(
        self, home: Path, arguments: Sequence[str], *, worker: str, environment: dict[str, str],
        starter: Starter | None = None,
    ) -> None:  # fmt: skip
        self.home = home
        self._number = len(list(home.glob("err-*")))
        self.err, self.out = home / f"err-{self._number}", home / f"out-{self._number}"
        self.out.touch()
        self.err.touch()
        start = starter or partial(_execute, worker)
        self.process: Process = start(arguments, environment, self.out, self.err)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log so far."""
        lines = self.err.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def said(self, name: str) -> list[dict[str, Any]]:
        """The events of a name so far."""
        return [event for event in self.events if event["event"] == name]

    def hears(self, name: str, count: int = 1, *, patience: float | None = None) -> dict[str, Any]:
        """Wait for an event; the last one of its name."""

        def is_heard() -> bool:
            if len(self.said(name)) >= count:
                return True
            assert self.process.poll() is None, f"ended before {name}: {self.err.read_text()}"
            return False

        until(name, is_heard, patience=patience)
        return self.said(name)[-1]

    def ask(self, command: p.AnyCommand, *, request_id: str = "") -> p.Done:
        """Ask over the control socket, as soon as there is one."""
        endpoint = f"ipc://{self.home / 'rt' / 'toy' / 'control.sock'}"
        until("the control socket", Path(endpoint.removeprefix("ipc://")).exists)
        return Client(endpoint).ask(command, PATIENCE_SECONDS, request_id=request_id)

    def status(self) -> dict[str, Any]:
        return self.ask(p.Status()).result

    def reaches(self, state: str) -> dict[str, Any]:
        """Wait for a state; the status in it."""
        until(f"the state {state}", lambda: self._status_or_none().get("state") == state)
        return self.status()

    def runs(self, window: int = 1, *, patience: float | None = None) -> int:
        """Wait for a window to be passed; the pid of the worker that did it."""
        try:
            until(
                f"window {window}",
                lambda: self._status_or_none().get("window", 0) >= window,
                patience=patience,
            )
        except AssertionError as error:
            error.add_note(f"status: {self._status_or_none()}")
            error.add_note(f"log: {self.err.read_text()[-4000:]}")
            raise
        return int(self.said("worker.started")[-1]["pid"])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self, patience: float = PATIENCE_SECONDS) -> int:
        """Wait for the exit code, for `patience` seconds at most."""
        return self.process.wait(timeout=patience)

    def clean(self) -> None:
        """Leave no process behind, whatever the test did."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for started in self.said("worker.started"):
            if is_worker_of(started["pid"], self.home / "run"):
                with contextlib.suppress(ProcessLookupError):  # it went just now
                    os.killpg(started["pid"], signal.SIGKILL)

    def _status_or_none(self) -> dict[str, Any]:
        try:
            return self.status()
        except CommandError:
            assert self.process.poll() is None, f"the daemon ended: {self.err.read_text()}"
            return {}


class Job:
    """A job file in a short directory of its own, and the daemons that were started on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "job.toml"
        self.directory = home / "run"
        self.environment = {"AMPD_RUNTIME_DIR": str(home / "rt")}
        self.daemons: list[Daemon] = []
        self.write()

    def write(self, **sections: str) -> None:
        """Write the job file anew; a section is TOML text, given by name."""
        given = {
            "job": f'name = "toy"\ndirectory = "{self.directory}"\nwindows = 100000',
            "workload": 'name = "digits"',
            "http": 'listen = "127.0.0.1:0"',
            "restart": "backoff_seconds = 0.01",
        } | sections
        self.file.write_text("\n".join(f"[{name}]\n{text}" for name, text in given.items()))

    def write_for_kills(self) -> None:
        """Write it so that the worker of a killed daemon, which is a fake and saves nothing, is not waited for."""
        self.write(restart="backoff_seconds = 0.01\nsave_budget_seconds = 0.05")

    def start(self, *arguments: str, worker: str = "", windows: int | None = None) -> Daemon:
        """`ampd start`, with faults of the fake worker as words."""
        words = ["start", "--config", str(self.file), *arguments]
        if windows is not None:
            words += ["--set", f"job.windows={windows}"]
        self.daemons.append(Daemon(self.home, words, worker=f"{FAKE} {worker}", environment=self.environment))
        return self.daemons[-1]

    def clean(self) -> None:
        for daemon in self.daemons:
            daemon.clean()
