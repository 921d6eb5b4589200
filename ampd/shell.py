"""The shell around the supervisor's core: carries its instructions out, and tells it what came of them.

It decides nothing. Everything that happens (a request, a report, an exit, a timer) becomes a stimulus on the event
loop's thread, one after the other; every instruction is carried out without waiting, and what takes time comes
back as a stimulus of its own.

Before the run begins only questions are answered: a command waits until the journal is read, since its answer may
be in there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, assert_never

from ampd import stacks
from ampd.child import Process, Workers
from ampd.control import records as disk
from ampd.control.server import ControlServer, Peer
from ampd.core import messages as m
from ampd.core import stimuli as s
from ampd.core.config import JobConfig
from ampd.core.protocol import Request
from ampd.core.questions import AT_ONCE
from ampd.core.supervisor import Supervisor
from ampd.errors import CheckpointError, ConfigError, PluginError
from ampd.presence import Presence

if TYPE_CHECKING:
    from ampd.ports import Ports

_TICK_SECONDS = 0.1
"""log.interval_seconds may be as short as this; a tick costs microseconds."""


class Shell:
    """One supervisor at work: first it only answers, then it runs the job."""

    def __init__(
        self,
        supervisor: Supervisor,
        control: ControlServer,
        *,
        workers: Workers,
        reread: Callable[[], JobConfig],
    ) -> None:
        self._supervisor = supervisor
        self._control = control
        self._workers = workers
        self._reread = reread
        self._opened: Ports | None = None
        self._waiting: list[tuple[Peer, Request]] = []
        self._child: Process | None = None
        self._ranks: Presence | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._exit: asyncio.Future[s.Exit] = asyncio.get_running_loop().create_future()

    def answer(self) -> None:
        """Answer questions from now on; commands wait for `run`."""
        self._begin(self._control.serve(self._requested))

    async def run(self, ports: Ports) -> s.Exit:
        """Supervise until the core says that it is over."""
        self._opened = ports
        metrics = asyncio.get_running_loop().create_task(self._serve_metrics())
        self._begin(ports.link.serve(self._reported))
        self._begin(self._tick())
        self.feed(_booted(ports.journal.account))
        for peer, request in self._waiting:
            self._requested(peer, request)
        try:
            return await self._exit
        finally:
            ports.metrics.close()
            await metrics

    def close(self) -> None:
        """End what was begun; the sockets are closed by who opened them."""
        for task in self._tasks:
            task.cancel()

    def feed(self, stimulus: s.AnyStimulus) -> None:
        """Let the core react, and carry out what it says."""
        for instruction in self._supervisor.handle(stimulus):
            self._carry_out(instruction)
        if self._opened is not None:
            self._opened.metrics.refresh()
            self._opened.console.update()
            self._opened.manager.tell(self._supervisor.view)

    def _happen(self, stimulus: s.AnyStimulus) -> None:
        """`feed`, for callbacks of the loop, which would print an exception and go on half deaf."""
        try:
            self.feed(stimulus)
        except Exception as bug:  # noqa: BLE001  # the loop's top: a bug of ours ends the daemon, and is raised by `run`
            self._fail(bug)

    def signalled(self, name: Literal["interrupt", "terminate", "hangup"]) -> None:
        """A signal came in."""
        self._happen(s.Signalled(now=time.time(), signal=name))

    # Instructions.

    @property
    def _ports(self) -> Ports:
        assert self._opened is not None, "before the run begins, the core asks for answers only"
        return self._opened

    def _carry_out(self, instruction: s.AnyInstruction) -> None:
        match instruction:
            case s.Spawn():
                self._begin(self._spawn())
            case s.SendOrder(order):
                self._ports.link.send(0, order)
            case s.Kill(gently):
                self._kill(gently)
            case s.DumpStacks(pids):
                self._begin(self._dump_stacks(pids))
            case s.Record(entry):
                self._record(entry)
            case s.Answer(client, reply):
                assert isinstance(client, Peer), f"{client} is no peer"
                self._control.reply(client, reply)
            case s.Publish(event, level):
                self._control.publish(event)
                self._ports.console.event(event, level)
            case s.SetTimer(timer, seconds):
                asyncio.get_running_loop().call_later(seconds, self._fired, timer)
            case s.ReadJobFile():
                asyncio.get_running_loop().call_soon(self._read_job_file)
            case s.SetLogLevel(level):
                self._ports.console.set_level(level)
            case s.Exit():
                self._exit.set_result(instruction)
            case _:
                assert_never(instruction)

    async def _spawn(self) -> None:
        view, ports = self._supervisor.view, self._ports
        ports.link.pulse.clear()
        self._ranks = Presence(ports.link.pulse)
        try:
            child = await self._workers.next(view, ports.link.endpoint, ports.directory)
        except OSError as error:
            reason = f"{error.filename} cannot be run: {error.strerror}"
            self.feed(s.Exited(now=time.time(), returncode=127, reason=reason))
            return
        self._child = child
        self.feed(s.Spawned(now=time.time(), pid=child.pid))
        returncode = await child.wait()
        self._child = None
        self._ports.directory.note_worker(None)
        self.feed(s.Exited(now=time.time(), returncode=returncode, last_lines=child.last_lines()))

    def _kill(self, gently: bool) -> None:
        if self._child is not None:
            self._child.kill(gently=gently)

    async def _dump_stacks(self, pids: tuple[int, ...]) -> None:
        saved = await stacks.save(self._ports.directory.path, pids)
        self.feed(s.Dumped(now=time.time(), path=saved.path, note=saved.note))

    def _record(self, entry: s.Entry) -> None:
        """No task for it: a change is recorded twice, and a task and its wake-ups cost more than the rest of that."""
        durable = self._ports.journal.append(_line(entry, time.time()))
        durable.add_done_callback(partial(self._recorded, entry))

    def _recorded(self, entry: s.Entry, durable: asyncio.Future[None]) -> None:
        if durable.cancelled() or self._exit.done():
            return
        error = durable.exception()
        if error is None or isinstance(error, CheckpointError):
            self._happen(s.Recorded(now=time.time(), entry=entry, error=str(error or "")))
        else:
            self._fail(error)

    def _read_job_file(self) -> None:
        try:
            config = self._reread()
        except (ConfigError, PluginError) as error:
            hint = error.hint if isinstance(error, ConfigError) else ""
            self._happen(s.Reloaded(now=time.time(), error=str(error), hint=hint))
        else:
            self._happen(s.Reloaded(now=time.time(), config=config))

    # Stimuli.

    def _requested(self, peer: Peer, request: Request) -> None:
        if self._opened is None and not isinstance(request.command, AT_ONCE):
            self._waiting.append((peer, request))
            return
        stored = self._opened.journal.account.answer_of(request.id) if self._opened is not None else None
        self.feed(
            s.Requested(now=time.time(), client=peer, author=peer.author, request=request, stored=stored)
        )

    def _reported(self, rank: int, report: m.Report) -> None:
        if isinstance(report, m.Hello) and self._ranks is not None:
            self._ranks.meet(rank, report.pid)
        self._happen(s.Reported(now=time.time(), rank=rank, report=report))

    def _fired(self, timer: s.Timer) -> None:
        self._happen(s.Fired(now=time.time(), timer=timer))

    async def _tick(self) -> None:
        """What is due by time and not by event: a look at the worker, the canonical line, systemd's watchdog."""
        manager = self._ports.manager
        fed, looked = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            before, looked = looked, time.monotonic()
            self._look(looked - before)
            self._ports.console.tick(time.time())
            if manager.watchdog_seconds and time.monotonic() - fed > manager.watchdog_seconds / 4:
                fed = time.monotonic()
                manager.feed_watchdog(self._supervisor.view)

    def _look(self, elapsed_seconds: float) -> None:
        """Of what is shown only the phase changes with a look, so little is rendered."""
        page, view = self._ports.link.pulse, self._supervisor.view
        shown = view.standing
        pulsed = s.Pulsed(
            now=time.time(), pulse=page.read(), peers=page.read_peers(), elapsed_seconds=elapsed_seconds,
            gone=self._ranks.gone() if self._ranks is not None else (),
        )  # fmt: skip
        for instruction in self._supervisor.handle(pulsed):
            self._carry_out(instruction)
        if view.standing is not None and (shown is None or shown.phase is not view.standing.phase):
            self._ports.metrics.refresh()  # a worker that evaluates says nothing else for minutes

    async def _serve_metrics(self) -> None:
        """A sink: that it fails is told, and the job goes on without it."""
        try:
            await self._ports.metrics.serve()
        except Exception as error:  # noqa: BLE001  # whatever it is, metrics must not end the job
            self._ports.console.complain("metrics.failed", repr(error), time.time())

    # Tasks.

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, bug: BaseException) -> None:
        if not self._exit.done():
            self._exit.set_exception(bug)


def _booted(account: disk.Account) -> s.Booted:
    return s.Booted(
        now=time.time(), schedule=account.applied(), pending=account.pending(), revisions=account.revisions()
    )


def _line(entry: s.Entry, now: float) -> disk.Record:
    """The journal's form of an entry."""
    match entry:
        case s.Accepted(act):
            return disk.Accepted(
                time=now, request_id=act.request_id, action=act.action, author=act.author, reason=act.reason
            )
        case s.Taken(applied, reply, differences, concluded):
            boot, told = (answer.boot if answer is not None else "" for answer in (reply, concluded))
            return disk.Applied(time=now, applied=applied, differences=differences, boot=boot, concluded=told)
        case s.Rejected(reply):
            return disk.Refused(time=now, reply=reply)
