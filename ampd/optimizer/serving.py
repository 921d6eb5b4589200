"""`ampctl` and /metrics for a program's own loop: an attached daemon as its child, and the link to it.

The daemon is a process and not a thread, so that it answers while the program computes, evaluates or hangs. What it is
asked to change comes down the link and is applied where the loop crosses a window's boundary, by the same `Boundary`
as in a job; figures go up as in a job. A daemon that dies costs the program nothing but its answers.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import IO, Self

import msgspec
import torch

from ampd.control.worker_link import WorkerLink
from ampd.core import messages as m
from ampd.core.attachment import Answer, Attached, NotAttached
from ampd.core.change import override
from ampd.core.config import JobConfig
from ampd.engine.boundary import Boundary
from ampd.errors import AmpdError, ConfigError, ExitCode, JobConflictError
from ampd.optimizer.pairs import Pair, Pairs
from ampd.optimizer.reports import Reports

_LOG = logging.getLogger("ampd")
_BEGIN_SECONDS = 30.0  # it answers within half a second, on a machine that is not busy
_END_SECONDS = 5.0
_LINK_DRAIN_SECONDS = 1.0
_OF_A_SERVICE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Where the program is a systemd service, these are for it alone."""


class Serving:
    """An attached daemon, from `begin` to `close` or the program's end; for the loop's thread."""

    def __init__(
        self, daemon: subprocess.Popen[bytes], answer: Attached, pairs: Pairs, reports: Reports
    ) -> None:
        self.endpoint = answer.endpoint
        """What `ampctl --endpoint` takes; with one daemon running, ampctl finds it by itself."""
        self.http = answer.http
        """host:port of /metrics and the status page."""
        self.pid = answer.pid
        self._daemon = daemon
        self._owner = os.getpid()
        self._pairs = pairs
        self._reports = reports
        self._link = WorkerLink(answer.link, 0)
        self._is_briefed = self._is_ready = self._is_closed = False

    @classmethod
    def begin(cls, config: JobConfig, pairs: Pairs, reports: Reports) -> Serving:
        """Start the daemon and introduce the program to it. Raises ConfigError or JobConflictError."""
        daemon = _start(config)
        serving = cls(daemon, _answer(daemon), pairs, reports)
        serving._link.start()
        serving._link.report(m.Hello(rank=0, pid=os.getpid()))
        reports.also = serving._link.report
        atexit.register(serving.close)
        return serving

    def bring(self, boundary: Boundary, pair: Pair) -> None:
        """Hand over the orders that have come, before a window."""
        if self._is_closed or self._is_lost():
            return
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._link.orders.get_nowait(), boundary)
        if self._is_briefed and not self._is_ready:
            self._is_ready = True
            self._reports(self._ready(boundary, pair))

    def close(self) -> None:
        """Take leave of the daemon, which ends; the loop goes on without. May be called twice."""
        if self._is_closed or os.getpid() != self._owner:  # a forked child has neither link nor daemon
            return
        self._link.report(m.Finished(result="completed", window=self._pairs.ledger.job.windows))
        self._leave()
        try:
            self._daemon.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, order: m.Order, boundary: Boundary) -> None:
        match order:
            case m.Start(pending=pending):
                self._is_briefed = True
                for act in pending:
                    boundary.take(act)
            case m.Act():
                boundary.take(order)
            case _:
                raise AssertionError(f"an attached daemon refuses {type(order).__name__}")

    def _ready(self, boundary: Boundary, pair: Pair) -> m.Ready:
        trainer = pair.trainer
        return m.Ready(
            window=self._pairs.ledger.job.windows, total_windows=trainer.total_windows, resumed=False,
            windows_per_epoch=pair.workload.windows_per_epoch, revision=boundary.live.revision,
            config=self._pairs.config, capability=trainer.capability, choice=trainer.choice,
            parameters=sum(p.numel() for p in trainer.parts.parameters), torch_version=str(torch.__version__),
        )  # fmt: skip

    def _is_lost(self) -> bool:
        """Whether the daemon has died; said once, and then done without."""
        code = self._daemon.poll()
        if code is None:
            return False
        _LOG.warning("daemon.died {'exit_code': %d}; the loop goes on without ampctl and /metrics", code)
        self._leave()
        return True

    def _leave(self) -> None:
        self._is_closed = True
        self._reports.also = None
        self._link.close(_LINK_DRAIN_SECONDS)
        atexit.unregister(self.close)


def served(config: JobConfig, name: str, listen: str) -> JobConfig:
    """The configuration of an attached daemon; raises ConfigError with the field that is wrong."""
    return override(config, {"job.name": name, "http.listen": listen, "job.on_finish": "exit"})


def _start(config: JobConfig) -> subprocess.Popen[bytes]:
    daemon = subprocess.Popen(
        [sys.executable, "-m", "ampd.cli.ampd", "attach", "--parent", str(os.getpid())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        env={name: value for name, value in os.environ.items() if name not in _OF_A_SERVICE},
    )  # fmt: skip
    assert daemon.stdin is not None, "it was asked for"
    with contextlib.suppress(BrokenPipeError), daemon.stdin as given:  # why it is gone is read below
        given.write(msgspec.json.encode(config))
    return daemon


def _answer(daemon: subprocess.Popen[bytes]) -> Attached:
    """What the daemon says of itself; where it could not begin, it is reaped and its reason raised."""
    assert daemon.stdout is not None, "it was asked for"
    with daemon.stdout as out:
        line = _line(out)
    if not line:
        daemon.kill()
        daemon.wait()
        raise JobConflictError(f"the attached daemon did not begin within {_BEGIN_SECONDS:g} s")
    answer: Answer = msgspec.json.decode(line, type=Answer)
    if isinstance(answer, NotAttached):
        daemon.wait()
        raise _error_of(answer)
    return answer


def _line(out: IO[bytes]) -> bytes:
    """One line; empty where none came in time."""
    deadline = time.monotonic() + _BEGIN_SECONDS
    line = b""
    while not line.endswith(b"\n") and select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(out.fileno(), 65536)
        if not piece:
            return b""
        line += piece
    return line


def _error_of(answer: NotAttached) -> AmpdError:
    if answer.exit_code == ExitCode.USAGE:
        return ConfigError(answer.message, field=answer.field, hint=answer.hint)
    return JobConflictError(answer.message)
