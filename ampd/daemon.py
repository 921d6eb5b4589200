"""The composition root of the supervisor: takes what it needs in order, runs, and gives it back in reverse.

The order is the promise that nothing is half done: a whole valid job file (`preflight`), then the job directory,
the control socket, the metrics port and the link; only when all of that is had is anything moved, written or
started. Whatever fails before leaves the directory as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from ampd.console import Console
from ampd.control import endpoints
from ampd.control.journal import Journal
from ampd.control.link import SupervisorLink
from ampd.control.server import ControlServer
from ampd.core.config import JobConfig
from ampd.core.stimuli import Exit
from ampd.core.supervisor import Supervisor
from ampd.core.view import JobView
from ampd.errors import AmpdError
from ampd.job_directory import JobDirectory
from ampd.preflight import Plan
from ampd.sd_notify import ServiceManager
from ampd.shell import Ports, Shell
from ampd.telemetry.http import MetricsServer

JOURNAL = "journal.jsonl"
WORKER_COMMAND = (sys.executable, "-m", "ampd.worker")

_SIGNALS = {signal.SIGINT: "interrupt", signal.SIGTERM: "terminate", signal.SIGHUP: "hangup"}


class Daemon:
    """One `ampd start`: a job, from its lock to its exit code."""

    def __init__(
        self,
        job: Plan,
        *,
        reread: Callable[[], JobConfig],
        is_fresh: bool = False,
        worker_command: Sequence[str] = WORKER_COMMAND,
        out: TextIO = sys.stdout,
        err: TextIO = sys.stderr,
    ) -> None:
        self._config = job.config
        self._reread = reread
        self._is_fresh = is_fresh
        self._worker_command = worker_command
        self._out, self._err = out, err

    def run(self) -> Exit:
        """Run the job to its end. Raises ConfigError or JobConflictError where it could not begin."""
        path = Path(self._config.job.directory).absolute()
        patience = self._config.restart.save_budget_seconds
        directory = JobDirectory.take(path, patience_seconds=patience, say=self._say)
        with contextlib.closing(directory):
            return asyncio.run(self._serve(directory))

    async def _serve(self, directory: JobDirectory) -> Exit:
        with contextlib.ExitStack() as opened:
            shell = self._open(directory, opened)
            loop = asyncio.get_running_loop()
            for number, name in _SIGNALS.items():
                loop.add_signal_handler(number, shell.signalled, name)
            ended = await shell.run()
            _ignore_signals(loop)
            return ended

    def _open(self, directory: JobDirectory, opened: contextlib.ExitStack) -> Shell:
        """Everything that is needed, or an error and nothing changed."""
        view = self._view(directory)
        with _abandoned_on_error(directory):
            control, link, metrics = self._bind(view, opened)
        if self._is_fresh:
            self._set_aside(directory)
        journal = opened.enter_context(contextlib.closing(Journal.open(directory.path / JOURNAL)))
        console = Console(view, self._out, self._err)
        console.open()
        opened.callback(console.close)
        ports = Ports(
            control=control, link=link, journal=journal, metrics=metrics, directory=directory, console=console,
            manager=ServiceManager(os.environ),
        )  # fmt: skip
        supervisor = Supervisor(view, schedule=journal.applied(), pending=journal.pending())
        return Shell(supervisor, ports, command=self._worker_command, reread=self._reread)

    def _view(self, directory: JobDirectory) -> JobView:
        now = time.time()
        return JobView(
            name=self._config.job.name, directory=str(directory.path), boot=secrets.token_hex(4), pid=os.getpid(),
            endpoint="", http="", started=now, config=self._config, state_since=now,
        )  # fmt: skip

    def _bind(
        self, view: JobView, opened: contextlib.ExitStack
    ) -> tuple[ControlServer, SupervisorLink, MetricsServer]:
        """Every address that somebody else may have; what is bound is written into the view."""
        runtime = endpoints.runtime_directory(view.name)
        control = ControlServer.bind(runtime, boot=view.boot, group=self._config.control.group)
        opened.callback(control.close)
        metrics = MetricsServer(lambda: view)
        opened.callback(metrics.close)
        metrics.bind(self._config.http.listen)
        link = SupervisorLink.bind(runtime)
        opened.callback(link.close)
        view.endpoint, view.http = control.endpoint, metrics.address
        return control, link, metrics

    def _set_aside(self, directory: JobDirectory) -> None:
        place = directory.set_aside(datetime.now(UTC))
        if place is not None:
            self._say(f"--fresh: what earlier runs left is now in {place}")

    def _say(self, message: str) -> None:
        print(f"ampd: {message}", file=self._err, flush=True)


def _ignore_signals(loop: asyncio.AbstractEventLoop) -> None:
    """The exit code is decided: one more Ctrl-C must not make it another."""
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _abandoned_on_error(directory: JobDirectory) -> Iterator[None]:
    try:
        yield
    except AmpdError:
        directory.abandon()
        raise
