"""The composition root of the supervisor: takes what it needs in order, runs, and gives it back in reverse.

The order is the promise that nothing is half done: a whole valid job file (`preflight`), then the job directory,
the control socket, the metrics port and the link; only when all of that is had is anything moved, written or
started. Whatever fails before leaves the directory as it was.

The control socket answers as soon as it is bound, and the web server and the log are imported beside that: they
take longer than everything else together, and an operator who asks must not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from ampd import failpoints, place
from ampd.child import Started, Workers
from ampd.control import endpoints, gate
from ampd.control.server import ControlServer
from ampd.core.config import JobConfig
from ampd.core.fingerprint import fingerprint
from ampd.core.group import Leader, Place
from ampd.core.stimuli import Exit
from ampd.core.supervisor import Supervisor
from ampd.core.view import JobView
from ampd.errors import AmpdError
from ampd.job_directory import NODES, JobDirectory
from ampd.shell import Shell

if TYPE_CHECKING:
    from ampd.ports import Ports

_TURN_SECONDS = 0.0005
"""How long a thread that computes (a journal written anew, a page rendered) may keep the interpreter from the loop that answers."""

WORKER_COMMAND = (sys.executable, "-m", "ampd.worker")

_SIGNALS: dict[signal.Signals, Literal["interrupt", "terminate", "hangup"]] = {
    signal.SIGINT: "interrupt",
    signal.SIGTERM: "terminate",
    signal.SIGHUP: "hangup",
}


class Daemon:
    """One `ampd start`: a job, from its lock to its exit code."""

    def __init__(
        self,
        config: JobConfig,
        *,
        reread: Callable[[], JobConfig],
        is_fresh: bool = False,
        workers: Workers | None = None,
        is_attached: bool = False,
        out: TextIO = sys.stdout,
        err: TextIO = sys.stderr,
    ) -> None:
        self._config = config
        self._reread = reread
        self._is_fresh = is_fresh
        self._workers = workers or Started(WORKER_COMMAND)
        self._is_attached = is_attached
        self._out, self._err = out, err

    def run(self) -> Exit:
        """Run the job to its end. Raises ConfigError or JobConflictError where it could not begin."""
        failpoints.arm(os.environ)
        sys.setswitchinterval(_TURN_SECONDS)
        signal.signal(
            signal.SIGHUP, signal.SIG_IGN
        )  # until there is something to reload, which its default would end
        here = place.find(self._config.distributed, self._say)
        path = Path(self._config.job.directory).absolute()
        own = path if here.leads else path / NODES / here.node
        patience = self._config.restart.save_budget_seconds
        directory = JobDirectory.take(own, patience_seconds=patience, say=self._say)
        with contextlib.closing(directory):
            failpoints.reach("start.locked")
            return asyncio.run(self._serve(directory, here))

    async def _serve(self, directory: JobDirectory, here: Place) -> Exit:
        view = self._view(directory, here)
        with contextlib.ExitStack() as opened:
            with _abandoned_on_error(directory):
                shell = self._answer(view, opened)
                ports = await self._open(view, directory, opened)
            loop = asyncio.get_running_loop()
            for number, name in _SIGNALS.items():
                loop.add_signal_handler(number, shell.signalled, name)
            ended = await shell.run(ports)
            _ignore_signals(loop)
            return ended

    def _view(self, directory: JobDirectory, here: Place) -> JobView:
        now = time.time()
        met = self._config.distributed.rendezvous.rpartition(":")[0] or os.environ.get("MASTER_ADDR", "")
        leader = None if here.leads else Leader(host=met)
        return JobView(
            name=self._config.job.name, directory=str(directory.path), boot=secrets.token_hex(4), pid=os.getpid(),
            endpoint="", http="", started=now, config=self._config, is_attached=self._is_attached, state_since=now,
            place=here, leader=leader, config_sha256=fingerprint(self._config),
        )  # fmt: skip

    def _answer(self, view: JobView, opened: contextlib.ExitStack) -> Shell:
        """Answer questions from now on."""
        runtime = endpoints.runtime_directory(_seated(view))
        opening = gate.read(self._config.control.listen) if view.place.seat == 0 else None
        if opening is not None:
            _take_every_file()
        control = ControlServer.bind(runtime, boot=view.boot, group=self._config.control.group, gate=opening)
        opened.callback(control.close)
        view.endpoint = control.endpoint
        shell = Shell(Supervisor(view), control, workers=self._workers, reread=self._reread)
        opened.callback(shell.close)
        shell.answer()
        failpoints.reach("start.bound")
        return shell

    async def _open(self, view: JobView, directory: JobDirectory, opened: contextlib.ExitStack) -> Ports:
        """Everything else that is needed, or an error and nothing changed."""
        await asyncio.to_thread(importlib.import_module, "ampd.ports")
        from ampd import ports

        link, metrics = ports.bind(view, endpoints.runtime_directory(_seated(view)), opened)
        view.http = metrics.address
        journal, aside = ports.open_files(directory, opened, is_fresh=self._is_fresh)
        if aside is not None:
            self._say(f"--fresh: what earlier runs left is now in {aside}")
        console = ports.open_console(view, self._out, self._err, opened)
        ports.spare_loaded()
        return ports.Ports(
            link=link, metrics=metrics, journal=journal, console=console, manager=ports.service_manager(),
            directory=directory,
        )  # fmt: skip

    def _say(self, message: str) -> None:
        print(f"ampd: {message}", file=self._err, flush=True)


def _seated(view: JobView) -> str:
    """The name that a daemon's sockets are found by: the job's, or with a number where that one is on the same machine."""
    return f"{view.name}-{view.place.seat}" if view.place.seat else view.name


def _take_every_file() -> None:
    """Raise the limit of open files to what we may: each connection that begins from elsewhere holds one for a while."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(PermissionError):  # a service manager may forbid it; then its own limit holds
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
