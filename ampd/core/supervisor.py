"""Everything that the daemon decides: `handle(stimulus) -> list[instruction]`, pure, the only writer of a JobView.

    Supervisor   who asked for what: requests, signals, timers; when to stop, when to exit and with which code
      Run        the workers, one after the other, and the result of the run
      Desk       requests that were admitted, and their replies
      Bulletin   what followers are told

A pure core instead of callbacks on sockets and processes, because the hard cases are orders of events: a crash
between an order and its record, a stop during a restart, a second Ctrl-C while a checkpoint is written. Here each
of them is a test of a few lines. The shell (`ampd.shell`) carries instructions out and decides nothing.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from ampd.core import edits, objections, outcome, questions, requests
from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.bulletin import Bulletin
from ampd.core.desk import Desk, Instructions
from ampd.core.edits import Edit
from ampd.core.lifecycle import JobState
from ampd.core.objections import Objection
from ampd.core.outcome import Stopping
from ampd.core.questions import Sources
from ampd.core.run import Run
from ampd.core.stimuli import TimerKind
from ampd.core.timers import Timers
from ampd.core.view import JobView
from ampd.core.watched import under_way
from ampd.core.worker_life import Worker
from ampd.errors import ConfigError, ExitCode

HURRY_SECONDS = 5.0
"""For a worker that has nothing to save, or whose checkpoint is not waited for any more."""


class Supervisor:
    """One daemon and its job."""

    def __init__(self, view: JobView) -> None:
        self.view = view
        self.desk = Desk(view)
        self._bulletin = Bulletin(view)
        self._timers = Timers()
        self.run = Run(view, self.desk, self._bulletin, self._timers)
        self._sources = Sources(view, self.run.rate, self.run.chronicle.history, self._bulletin.ring)
        self._stopping: Stopping | None = None
        self._reloads = 0
        self._is_dismissed = False  # a held daemon that was told to go
        self._has_left = False

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
                return [self._bulletin.tell("worker.started", stimulus.now, pid=stimulus.pid)]
            case s.Exited():
                return self.run.left(stimulus)
            case s.Requested():
                return self._requested(stimulus)
            case s.Reported():
                return self.run.reported(stimulus)
            case s.Recorded():
                return self.desk.recorded(stimulus)
            case s.Fired():
                return self._fired(stimulus)
            case s.Signalled():
                return self._signalled(stimulus)
            case s.Reloaded():
                return self._reloaded(stimulus)
            case s.Pulsed():
                self.view.spend(stimulus.elapsed_seconds)
                return self.run.pulsed(stimulus)
            case s.Dumped():
                return self.run.dumped(stimulus)
            case _:
                assert_never(stimulus)

    def _booted(self, booted: s.Booted) -> Instructions:
        view = self.view
        told = self._bulletin.tell(
            "daemon.started", booted.now, pid=view.pid, endpoint=view.endpoint, http=view.http
        )
        self.desk.restore(booted.pending, under_way(booted.schedule, booted.revisions))
        return [told, *self.run.begin(booted)]

    def _requested(self, asked: s.Requested) -> Instructions:
        command = asked.request.command
        op = str(command.__struct_config__.tag)
        self.view.requests[op] = self.view.requests.get(op, 0) + 1
        if self.view.leader is not None and not isinstance(command, questions.AT_ONCE):
            return self.desk.refuse(asked, objections.follows(self.view.leader))
        if isinstance(command, questions.Question):
            return questions.read(self.desk, self._sources, asked)
        if self.view.is_attached and isinstance(command, requests.OF_THE_LOOP):
            return self.desk.refuse(asked, objections.not_ours(op))
        repeated = self.desk.repeated(asked)
        if repeated is not None:
            return repeated
        if isinstance(command, p.Stop):
            return self._asked_to_stop(asked, command)
        return requests.route(self.desk, self.view, self.run.chronicle.history, asked)

    def _fired(self, fired: s.Fired) -> Instructions:
        if not self._timers.take(fired.timer):
            return []
        match fired.timer.kind:
            case TimerKind.LAST_WORDS:
                return self._bury(fired.now)
            case TimerKind.BACKOFF:
                return self._bulletin.move(JobState.STARTING, "restarted", fired.now) + self.run.spawn()
            case TimerKind.SAVE_BUDGET:
                self._note(is_overdue=True)
                return [s.Kill(gently=False)]
            case TimerKind.LEAVING:
                return [s.Kill(gently=False)]

    def _bury(self, now: float) -> Instructions:
        told = self.run.bury(now)
        if self._stopping is not None:
            ending = outcome.ended_early(self.view, self._stopping, self.run.last_exit)
            return told + self.run.end(ending, now)
        if self.view.is_attached:
            return told + self.run.end(outcome.vanished(self.view), now)
        return told + self.run.recover(now)

    # Stopping.

    def _asked_to_stop(self, asked: s.Requested, command: p.Stop) -> Instructions:
        if self.view.state.is_final:
            self._is_dismissed = True
            return self.desk.answer(asked, outcome.stopped(self.view))
        out = self.desk.admit(asked, m.Stop(request_id=asked.request.id, save=command.save))
        if not self.desk.has(asked.request.id):
            return out
        if self._stopping is None:
            return out + self._stop(asked.now, f"stop asked for by {asked.author}", save=command.save)
        return out if command.save else out + self._hurry(asked.now)

    def _signalled(self, signalled: s.Signalled) -> Instructions:
        is_over = self.view.state.is_final
        match signalled.signal:
            case "hangup":
                return [] if is_over else [s.ReadJobFile()]
            case "interrupt" | "terminate" if is_over:
                self._is_dismissed = True
                return [] if self.run.worker is Worker.ABSENT else [s.Kill(gently=False)]
            case "interrupt" | "terminate" if self._stopping is not None:
                self._note(is_cut_short=True)
                return self._hurry(signalled.now)
            case "interrupt":
                return self._stop(signalled.now, "SIGINT", save=True, is_cut_short=True)
            case "terminate":
                return self._stop(signalled.now, "SIGTERM", save=True)

    def _stop(self, now: float, reason: str, *, save: bool, is_cut_short: bool = False) -> Instructions:
        worker = self.run.worker
        if self.view.is_attached:
            save, is_cut_short = False, False
        self._stopping = Stopping(save=save, was_ready=worker is Worker.READY, is_cut_short=is_cut_short)
        self._timers.drop(TimerKind.BACKOFF)
        out = self._bulletin.move(JobState.STOPPING, reason, now)
        self.desk.closing(objections.over(self.view.state))
        match worker:
            case Worker.READY if self.view.is_attached:
                return [*out, s.Kill(gently=True)]
            case Worker.READY:
                budget = self.view.config.restart.save_budget_seconds if save else HURRY_SECONDS
                return [*out, s.SendOrder(m.Stop(save=save)), self._timers.set(TimerKind.SAVE_BUDGET, budget)]
            case Worker.LOADING | Worker.BRIEFED:
                return [*out, s.Kill(gently=True), self._timers.set(TimerKind.SAVE_BUDGET, HURRY_SECONDS)]
            case Worker.GONE:
                return out
            case Worker.ABSENT:
                return out + self.run.end(outcome.not_running(self.view), now)

    def _hurry(self, now: float) -> Instructions:
        """The checkpoint is not waited for any more; a third time, or where there is none to write, nothing is."""
        assert self._stopping is not None
        was_hurried = self._stopping.is_hurried
        self._note(is_hurried=True)
        if self.run.worker in (Worker.ABSENT, Worker.GONE):
            return []
        told = self._bulletin.tell("stop.hurried", now, level="warning")
        if was_hurried or self.run.worker is not Worker.READY:
            return [told, s.Kill(gently=False)]
        return [told, s.SendOrder(m.Stop(save=False)), self._timers.set(TimerKind.SAVE_BUDGET, HURRY_SECONDS)]

    def _note(self, **claims: bool) -> None:
        assert self._stopping is not None
        self._stopping = msgspec.structs.replace(self._stopping, **claims)

    def _leave(self) -> Instructions:
        view = self.view
        is_over = view.state.is_final and self.run.worker is Worker.ABSENT and self.desk.is_quiet
        is_kept = not self._is_dismissed and outcome.is_held(view, was_ready=self.run.was_ready)
        if not is_over or is_kept or self._has_left:
            return []
        self._has_left = True
        code, result = outcome.exit_code(view, self._stopping), view.result
        if code == ExitCode.OK or result is None:
            return [s.Exit(code)]
        return [s.Exit(code, result.message, result.hint)]

    # The job file, read again.

    def _reloaded(self, reloaded: s.Reloaded) -> Instructions:
        """Make the live keys what the file says, and name the others that differ; all or nothing."""
        if reloaded.config is None:
            return [self._refuse_reload(reloaded.now, reloaded.error, reloaded.hint)]
        live, fixed = edits.split_by_life(self.view.config, reloaded.config)
        try:
            filed = self._file(edits.edit(self.view.config, live))
        except ConfigError as error:
            return [self._refuse_reload(reloaded.now, str(error), error.hint)]
        if isinstance(filed, Objection):
            return [self._refuse_reload(reloaded.now, filed.message, filed.hint)]
        return [
            self._bulletin.tell("config.reloaded", reloaded.now, changes=live, needs_restart=fixed),
            *filed,
        ]

    def _file(self, edit: Edit) -> Objection | Instructions:
        if not edit.changes:
            return []
        if self.view.leader is not None:
            return objections.follows(self.view.leader)
        self._reloads += 1
        request_id = f"supervisor:reload-{self.view.boot}-{self._reloads}"
        action = m.Configure(changes=edit.changes)
        return self.desk.file(
            m.Act(request_id=request_id, action=action, author="reload", reason="job file read again")
        )

    def _refuse_reload(self, now: float, error: str, hint: str) -> s.Publish:
        return self._bulletin.tell("config.reload_refused", now, level="warning", error=error, hint=hint)
