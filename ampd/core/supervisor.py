"""Everything that the daemon decides: `handle(stimulus) -> list[Instruction]`, pure, and the only writer of a JobView.

    worker:   ABSENT --Spawn--> LOADING --Hello--> BRIEFED --Ready--> READY
                ^                  |                  |                 |
                |                  +--------Exited----+-----------------+
                +---last words--- GONE <--------------+

The worker's life and the job's state (`core.lifecycle`) are two things: a job is still `running` for the moment in
which its dead worker's last reports are read, and a job that is `stopped` may still have a worker that exits.
The result of a run is what the worker said in `Finished`; a worker that ends without it has crashed, whatever its
exit code. A pure core instead of callbacks on sockets and processes, because the hard cases here are orders of
events (a crash between an order and its record, a stop during a restart) and can all be written down as tests.

Requests and replies are the desk's; this module says when a worker takes orders and when the job is over.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import msgspec

from ampd.core import edits, objections, outcome, replies
from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.desk import Desk, Instructions
from ampd.core.events import describe, level_of
from ampd.core.lifecycle import JobState, move
from ampd.core.objections import Objection
from ampd.core.observed import observe
from ampd.core.outcome import Stopping
from ampd.core.rate import Rate
from ampd.core.stimuli import TimerKind
from ampd.core.view import JobView
from ampd.errors import ConfigError, ExitCode

LAST_WORDS_SECONDS = 0.25
"""A worker's last reports are in the kernel's buffer when it exits; reading them takes milliseconds."""
LEAVING_SECONDS = 10.0
"""A worker that has finished frees its device and goes; more than this is a hang."""
HURRY_SECONDS = 5.0
"""For a worker that has nothing to save, or that is no longer waited for."""


class Worker(enum.Enum):
    """How far the present worker has come."""

    ABSENT = enum.auto()
    LOADING = enum.auto()  # its process was asked for, and has not spoken
    BRIEFED = enum.auto()  # it has its Start order
    READY = enum.auto()  # it takes orders
    GONE = enum.auto()  # its process is gone, its last reports may not be


class Supervisor:
    """The state of a daemon that is no fact about its job: the worker, the timers, the stop."""

    def __init__(
        self, view: JobView, *, schedule: Sequence[m.AppliedAction] = (), pending: Sequence[m.Act] = ()
    ) -> None:
        self.view = view
        self.rate = Rate()
        self.desk = Desk(view, tuple(pending))
        self._file = view.config  # what a worker begins with, before its checkpoint and the schedule
        self._schedule = list(schedule)
        self._worker = Worker.ABSENT
        self._was_ready = False  # the present worker, or the one whose last words are read
        self._exited: s.Exited | None = None
        self._stopping: Stopping | None = None
        self._crashes = 0  # in a row, without a new checkpoint
        self._reloads = 0
        self._timers: dict[TimerKind, s.Timer] = {}
        self._is_dismissed = False  # a held daemon that was told to go
        self._has_left = False

    @property
    def worker(self) -> Worker:
        """How far the present worker has come."""
        return self._worker

    def handle(self, stimulus: s.AnyStimulus) -> Instructions:
        """What to do about it, in order; the view is up to date when this returns."""
        level = self.view.config.log.level
        out = self._react(stimulus)
        if self.view.config.log.level != level:
            out.append(s.SetLogLevel(self.view.config.log.level))
        return out + self._leave()

    def _react(self, stimulus: s.AnyStimulus) -> Instructions:
        match stimulus:
            case s.Booted():
                return self._booted(stimulus)
            case s.Spawned():
                return [self._tell("worker.started", stimulus.now, pid=stimulus.pid)]
            case s.Exited():
                return self._left(stimulus)
            case s.Requested():
                return self._requested(stimulus)
            case s.Reported():
                return self._reported(stimulus)
            case s.Recorded():
                return self.desk.recorded(stimulus)
            case s.Fired():
                return self._fired(stimulus)
            case s.Signalled():
                return self._signalled(stimulus)
            case s.Reloaded():
                return self._reloaded(stimulus)
            case _:
                assert_never(stimulus)

    # The worker's life.

    def _booted(self, booted: s.Booted) -> Instructions:
        view = self.view
        for done in self._schedule:
            if isinstance(done.action, m.Configure):
                view.config = edits.rebased(view.config, done.action.changes)
            view.revision = max(view.revision, done.revision)
        told = self._tell("daemon.started", booted.now, name=view.name, pid=view.pid, endpoint=view.endpoint, http=view.http)
        return [told, *self._spawn()]

    def _spawn(self) -> Instructions:
        self._worker, self._was_ready = Worker.LOADING, False
        return [s.Spawn()]

    def _left(self, exited: s.Exited) -> Instructions:
        """The process is gone. What it said before is still on its way, and may hold the result of the run."""
        if self._worker in (Worker.ABSENT, Worker.GONE):
            return []
        self._exited = exited
        self.desk.shut()
        self._timers.pop(TimerKind.SAVE_BUDGET, None)
        if self.view.state.is_final:
            self._worker = Worker.ABSENT
            return []
        self._worker = Worker.GONE
        return [self._arm(TimerKind.LAST_WORDS, LAST_WORDS_SECONDS)]

    def _bury(self, now: float) -> Instructions:
        """It has said all, and not how the run ended."""
        exited = self._exited
        assert exited is not None
        self._worker = Worker.ABSENT
        reason = outcome.reason_of(exited)
        told = self._tell(
            "worker.died", now, level="warning", reason=reason, returncode=exited.returncode, last_lines=exited.last_lines
        )
        if self._stopping is not None:
            ending = outcome.ended_early(self.view, self._stopping, exited, replies.window_of(self.view))
            return [told, *self._end(ending, now)]
        return [told, *self._recover(exited, reason, now)]

    def _recover(self, exited: s.Exited, reason: str, now: float) -> Instructions:
        restart = self.view.config.restart
        self._crashes += 1
        if self._crashes > restart.max_restarts:
            return self._end(outcome.gave_up(self.view, exited, replies.window_of(self.view)), now)
        kind = outcome.kind_of(exited)
        self.view.restarts[kind] = self.view.restarts.get(kind, 0) + 1
        out = self.desk.lose(was_paused=self.view.state is JobState.PAUSED)
        wait = restart.backoff_seconds * 2.0 ** (self._crashes - 1)
        return [*out, *self._move(JobState.RECOVERING, reason, now), self._arm(TimerKind.BACKOFF, wait)]

    # What the worker says.

    def _reported(self, reported: s.Reported) -> Instructions:
        report, now = reported.report, reported.now
        out = [] if isinstance(report, m.Snapshot) else [self._announce(report, now)]
        if not self._is_due(report):
            return out
        observe(self.view, reported.rank, report, now)
        return out + self._follow(report, now)

    def _is_due(self, report: m.Report) -> bool:
        """Whether this can be news: a worker of the past, or one that repeats itself, moves nothing."""
        if self.view.state.is_final or self._worker is Worker.ABSENT:
            return False
        match report:
            case m.Hello():
                return self._worker is Worker.LOADING
            case m.Ready():
                return self._worker is Worker.BRIEFED
            case m.Snapshot() | m.Applied():
                return self._was_ready
            case _:
                return self._worker is not Worker.LOADING

    def _follow(self, report: m.Report, now: float) -> Instructions:
        match report:
            case m.Hello():
                return self._brief()
            case m.Ready():
                return self._welcome(report, now)
            case m.Snapshot():
                self.rate.add(now, report)
                return []
            case m.Applied():
                return self._applied(report)
            case m.Refused():
                return self.desk.refused(report)
            case m.Saved():
                self._crashes = 0
                return self.desk.saved(report)
            case m.SaveFailed():
                return self.desk.save_failed(report)
            case m.Holding():
                moves = self._move_from(JobState.RUNNING, JobState.PAUSED, report.reason, now)
                return moves + self.desk.held(m.Pause, report.request_id, JobState.PAUSED)
            case m.Going():
                moves = self._move_from(JobState.PAUSED, JobState.RUNNING, "", now)
                return moves + self.desk.held(m.Resume, report.request_id, JobState.RUNNING)
            case m.Finished():
                return self._end(report, now)
            case m.SetAside() | m.FellBack() | m.Skipped() | m.ScaleMoved() | m.LimitReached() | m.Evaluated() | m.Warned():
                return []
            case _:
                assert_never(report)

    def _brief(self) -> Instructions:
        self._worker = Worker.BRIEFED
        if self._stopping is not None:
            return []
        start = m.Start(
            config=self._file, directory=self.view.directory, schedule=tuple(self._schedule), pending=self.desk.brief()
        )
        return [s.SendOrder(start)]

    def _welcome(self, ready: m.Ready, now: float) -> Instructions:
        self._worker, self._was_ready = Worker.READY, True
        self.rate.clear()
        if self._stopping is not None:
            return []
        reason = f"resumed at window {ready.window}" if ready.resumed else ""
        return self._move(JobState.RUNNING, reason, now) + self.desk.open()

    def _applied(self, report: m.Applied) -> Instructions:
        """An action of the schedule that a resumed worker repeats is known and was answered; a new one is recorded."""
        done = report.applied
        if self._schedule and done.seq <= self._schedule[-1].seq:
            return []
        self._schedule.append(done)
        if isinstance(done.action, m.Configure):
            who = "policy" if done.author == "policy" else "operator"
            self.view.changes[who] = self.view.changes.get(who, 0) + 1
        return self.desk.applied(report)

    # Requests, signals, timers.

    def _requested(self, asked: s.Requested) -> Instructions:
        command = asked.request.command
        op = str(command.__struct_config__.tag)
        self.view.requests[op] = self.view.requests.get(op, 0) + 1
        if isinstance(command, requests.READS):
            return requests.read(self.desk, self.view, self.rate, asked)
        repeated = self.desk.repeated(asked)
        if repeated is not None:
            return repeated
        if isinstance(command, p.Stop):
            return self._asked_to_stop(asked, command)
        return requests.route(self.desk, self.view, asked)

    def _asked_to_stop(self, asked: s.Requested, command: p.Stop) -> Instructions:
        if self.view.state.is_final:
            self._is_dismissed = True
            return self.desk.answer(asked, self._stopped())
        out = self.desk.admit(asked, m.Stop(request_id=asked.request.id, save=command.save))
        if not self.desk.has(asked.request.id):
            return out
        if self._stopping is None:
            return out + self._stop(asked.now, f"stop asked for by {asked.author}", save=command.save)
        return out if command.save else out + self._hurry()

    def _signalled(self, signalled: s.Signalled) -> Instructions:
        if signalled.signal == "hangup":
            return [] if self.view.state.is_final else [s.ReadJobFile()]
        is_interrupt = signalled.signal == "interrupt"
        if self.view.state.is_final:
            self._is_dismissed = True
            return [] if self._worker is Worker.ABSENT else [s.Kill(gently=False)]
        if self._stopping is None:
            name = "SIGINT" if is_interrupt else "SIGTERM"
            return self._stop(signalled.now, name, save=True, is_cut_short=is_interrupt)
        self._stopping = msgspec.structs.replace(self._stopping, is_cut_short=True)
        return self._hurry()

    def _stop(self, now: float, reason: str, *, save: bool, is_cut_short: bool = False) -> Instructions:
        was_ready = self._worker is Worker.READY
        self._stopping = Stopping(save=save, was_ready=was_ready, is_cut_short=is_cut_short)
        self._timers.pop(TimerKind.BACKOFF, None)
        out = self._move(JobState.STOPPING, reason, now)
        self.desk.closing(objections.over(self.view.state))
        match self._worker:
            case Worker.READY:
                budget = self.view.config.restart.save_budget_seconds if save else HURRY_SECONDS
                return [*out, s.SendOrder(m.Stop(save=save)), self._arm(TimerKind.SAVE_BUDGET, budget)]
            case Worker.LOADING | Worker.BRIEFED:
                return [*out, s.Kill(gently=True), self._arm(TimerKind.SAVE_BUDGET, HURRY_SECONDS)]
            case Worker.GONE:
                return out
            case Worker.ABSENT:
                ending = m.Finished(result="stopped", window=replies.window_of(self.view), message="stopped while no worker ran")
                return out + self._end(ending, now)

    def _hurry(self) -> Instructions:
        """Not the checkpoint but the end is wanted: at once from a third time on."""
        assert self._stopping is not None
        was_hurried, is_ready = self._stopping.is_hurried, self._worker is Worker.READY
        self._stopping = msgspec.structs.replace(self._stopping, is_hurried=True)
        if self._worker in (Worker.ABSENT, Worker.GONE):
            return []
        if was_hurried or not is_ready:
            return [s.Kill(gently=False)]
        return [s.SendOrder(m.Stop(save=False)), self._arm(TimerKind.SAVE_BUDGET, HURRY_SECONDS)]

    def _fired(self, fired: s.Fired) -> Instructions:
        kind = fired.timer.kind
        if self._timers.get(kind) != fired.timer:
            return []
        del self._timers[kind]
        match kind:
            case TimerKind.LAST_WORDS:
                return self._bury(fired.now)
            case TimerKind.BACKOFF:
                return self._move(JobState.STARTING, "restarted", fired.now) + self._spawn()
            case TimerKind.LEAVING:
                return [s.Kill(gently=False)]
            case TimerKind.SAVE_BUDGET:
                assert self._stopping is not None
                self._stopping = msgspec.structs.replace(self._stopping, is_overdue=True)
                return [s.Kill(gently=False)]

    # The end.

    def _end(self, ending: m.Finished, now: float) -> Instructions:
        """The run has a result; the worker, where there is one, has a while to leave."""
        self.view.result = ending
        self._timers.clear()
        if self._worker is Worker.GONE:
            self._worker = Worker.ABSENT
        out = [move for state in self._way_to(JobState(ending.result)) for move in self._move(state, ending.message, now)]
        out += self.desk.close(objections.over(self.view.state), self._stopped())
        return out if self._worker is Worker.ABSENT else [*out, self._arm(TimerKind.LEAVING, LEAVING_SECONDS)]

    def _way_to(self, final: JobState) -> tuple[JobState, ...]:
        state = self.view.state
        if final is JobState.STOPPED and state is not JobState.STOPPING:
            return (JobState.STOPPING, final)
        return (JobState.RUNNING, final) if (state, final) == (JobState.PAUSED, JobState.COMPLETED) else (final,)

    def _stopped(self) -> dict[str, Any]:
        return {"state": self.view.state, "saved": outcome.is_saved(self.view)}

    def _leave(self) -> Instructions:
        view = self.view
        is_over = view.state.is_final and self._worker is Worker.ABSENT and self.desk.is_quiet
        if not is_over or self._is_held or self._has_left:
            return []
        self._has_left = True
        code, result = outcome.exit_code(view, self._stopping), view.result
        if code == ExitCode.OK or result is None:
            return [s.Exit(code)]
        return [s.Exit(code, result.message, result.hint)]

    @property
    def _is_held(self) -> bool:
        """A job that ended by itself is served on, where the job file says so; one that never began is not."""
        view = self.view
        is_held = view.config.job.on_finish == "hold" and view.state is not JobState.STOPPED
        never_began = view.result is not None and view.result.exit_code == ExitCode.USAGE and not self._was_ready
        return is_held and not never_began and not self._is_dismissed

    # Telling.

    def _announce(self, report: m.Report, now: float) -> s.Publish:
        name, fields = describe(report)
        return self._publish(name, fields, level_of(report), now)

    def _tell(self, name: str, now: float, *, level: str = "info", **fields: Any) -> s.Publish:
        return self._publish(name, fields, level, now)

    def _publish(self, name: str, fields: dict[str, Any], level: str, now: float) -> s.Publish:
        self.view.events += 1
        return s.Publish(p.Event(boot=self.view.boot, seq=self.view.events, time=now, name=name, fields=fields), level)

    def _move(self, to: JobState, reason: str, now: float) -> Instructions:
        view = self.view
        start, view.state = view.state, move(view.state, to)
        view.state_since, view.state_reason = now, reason
        level = {JobState.FAILED: "error", JobState.RECOVERING: "warning"}.get(to, "info")
        fields = {"from": start, "to": to, "reason": reason}
        return [self._publish("lifecycle.changed", fields, level, now)]

    def _move_from(self, start: JobState, to: JobState, reason: str, now: float) -> Instructions:
        return self._move(to, reason, now) if self.view.state is start else []

    def _arm(self, kind: TimerKind, seconds: float) -> s.SetTimer:
        self._settings += 1
        self._timers[kind] = s.Timer(kind, self._settings)
        return s.SetTimer(self._timers[kind], seconds)
