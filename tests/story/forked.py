"""Daemons and workers that are forked from a process which has torch loaded already: a start costs a tenth of a second.

The code that runs is that of `ampd start` and `ampd.worker`, from their command lines on; only exec, and the imports
after it, are left out. A worker is a child of its daemon as ever: with the lock as an open file, a session and a log of
its own, and a signal when its daemon dies. So it can be killed a thousand times where importing torch, which takes two
seconds, cannot. What it is not: known by its environment, which /proc shows as it was at exec; it writes itself down.

`python -m tests.story.forked` is that process: one line of JSON for each daemon to be started, the pid in answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import msgspec

from ampd import child, worker
from ampd.child import LOG, Child
from ampd.control.lifeline import WORKER_OF
from ampd.core.view import JobView
from ampd.job_directory import Holders, JobDirectory
from tests.tree import ROOT


class Zygote:
    """The process that is forked from, from its start to `close`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.story.forked"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], out: Path, err: Path
    ) -> ForkedDaemon:
        """`ampd` with these arguments."""
        code = out.with_name(out.name.replace("out", "code"))
        order = {"arguments": arguments, "environment": environment, "out": out, "err": err, "code": code}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order, default=str) + "\n")
        return ForkedDaemon(int(self._process.stdout.readline()), code)

    def close(self) -> None:
        """End it; what it started lives on."""
        self._process.communicate()


class ForkedDaemon:
    """A daemon that is not our child, with the face of `subprocess.Popen`."""

    def __init__(self, pid: int, code: Path) -> None:
        self.pid = pid
        self._code = code
        self._ended = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if not select.select([self._ended], [], [], 0)[0]:
            return None
        return int(self._code.read_text()) if self._code.exists() else -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> int:
        """The same, waited for; raises subprocess.TimeoutExpired."""
        if not select.select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(["ampd"], timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """To that very process, or to nobody."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._ended, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class ForkedWorkers:
    """Workers that are forked from their daemon; in the place of `ampd.child.Started`."""

    def __init__(self, _command: Sequence[str]) -> None:
        pass

    async def next(self, _view: JobView, link: str, directory: JobDirectory) -> Child:
        """Start one, with what a worker inherits and no more."""
        log, daemon = directory.path / LOG, os.getpid()
        with log.open("ab") as output:
            begun, pid = os.fstat(output.fileno()).st_size, os.fork()
            if pid == 0:
                _run(lambda: _become_worker(link, directory, daemon, output.fileno()))
        directory.note_worker(pid)
        return Child(cast(asyncio.subprocess.Process, _Forked(pid)), log, begun)


class _Forked:
    """A child as asyncio has it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    async def wait(self) -> int:
        watched, loop, over = os.pidfd_open(self.pid), asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(watched, over.set)
        await over.wait()
        loop.remove_reader(watched)
        os.close(watched)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])  # noqa: ASYNC222  # it has ended


def _become_worker(link: str, directory: JobDirectory, daemon: int, log: int) -> None:
    """As exec leaves a process: no handlers, no open files but the standard ones and the lock."""
    os.pwrite(directory.lock, msgspec.json.encode(Holders(daemon, os.getpid())), 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, directory.lock)
    os.closerange(directory.lock + 1, os.sysconf("SC_OPEN_MAX"))
    os.environ[WORKER_OF] = str(directory.path)
    sys.argv = ["ampd.worker", "--link", link, "--rank", "0"]
    worker.main()


def _become_daemon(order: Mapping[str, Any]) -> None:
    from ampd.cli.ampd import cli

    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY), (1, order["out"], os.O_WRONLY), (2, order["err"], os.O_WRONLY)
    ):  # fmt: skip
        os.dup2(os.open(path, flags | os.O_CREAT, 0o600), number)
    os.environ |= order["environment"]
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    vars(child)["Started"] = ForkedWorkers
    try:
        cli(args=order["arguments"], obj=[])
    except SystemExit as ended:
        Path(order["code"]).write_text(str(ended.code or 0))


def _run(become: Callable[[], None]) -> NoReturn:
    """Be another process to its end, whatever that is, and nothing of this one."""
    code = 1
    try:
        become()
        code = 0
    except BaseException:  # noqa: BLE001  # a process' top: told in its log, and its exit code
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Fork what is asked for, until nobody asks any more."""
    import tests.story.quick  # noqa: F401

    for line in sys.stdin:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pid = os.fork()
        if pid == 0:
            _run(lambda: _become_daemon(json.loads(line)))  # noqa: B023  # called at once
        print(pid, flush=True)


if __name__ == "__main__":
    main()
