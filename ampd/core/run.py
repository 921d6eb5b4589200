"""The run as its workers live it: started, briefed, ready, gone, started again, and at last a result.

The worker's life and the job's state (`core.lifecycle`) are two things: a job is still `running` for the moment in
which its dead worker's last reports are read, and a job that is over may still have a worker that leaves. The
result is what the worker said in `Finished`; one that ends without it has crashed, whatever its exit code.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from ampd.core import messages as m
from ampd.core import objections, outcome
from ampd.core import stimuli as s
from ampd.core.bulletin import Bulletin
from ampd.core.chronicle import Chronicle
from ampd.core.desk import Desk, Instructions
from ampd.core.lifecycle import JobState
from ampd.core.observed import observe
from ampd.core.rate import Rate
from ampd.core.stimuli import TimerKind
from ampd.core.timers import Timers
from ampd.core.view import JobView
from ampd.core.watch import Watch
from ampd.core.worker_life import Worker, is_news

LAST_WORDS_SECONDS = 0.25
"""A worker's last reports are in the kernel's buffer when it exits; reading them takes milliseconds."""
LEAVING_SECONDS = 10.0
"""A worker that has finished frees its device and goes; more than this is a hang."""


class Run:
    """The workers of one job, one after the other."""

    def __init__(self, view: JobView, desk: Desk, bulletin: Bulletin, timers: Timers) -> None:
        self.worker = Worker.ABSENT
        self.was_ready = False  # the present worker, or the one whose last words are read
        self.rate = Rate()
        self._view, self._desk, self._bulletin, self._timers = view, desk, bulletin, timers
        self._watch = Watch(view, bulletin)
        self.chronicle = Chronicle(view.config)
        self._exited: s.Exited | None = None
        self._crashes = 0  # in a row, without a new checkpoint
        self._is_missing = False  # a rank is, which was counted
        self._is_rolling_back = False
        self._left: m.AppliedAction | None = None  # by a rank of a node that follows, for the next group

    @property
    def last_exit(self) -> s.Exited:
        """How the worker went whose last words are read."""
        assert self._exited is not None, "no worker has exited"
        return self._exited

    # Processes.

    def begin(self, booted: s.Booted) -> Instructions:
        """Start the first worker."""
        self.chronicle.restore(booted, self._view)
        return self.spawn()

    def spawn(self) -> Instructions:
        """Start a worker."""
        self.worker, self.was_ready = Worker.LOADING, False
        self._watch.begin()
        return [s.Spawn()]

    def left(self, exited: s.Exited) -> Instructions:
        """The process is gone. What it said before is still on its way, and may hold the result of the run."""
        if self.worker in (Worker.ABSENT, Worker.GONE):
            return []
        why = self._watch.reason
        self._exited = msgspec.structs.replace(exited, reason=why) if why else exited
        self._view.standing = None
        self._desk.shut()
        self._timers.drop(TimerKind.SAVE_BUDGET)
        if self._view.state.is_final:
            self.worker = Worker.ABSENT
            return []
        self.worker = Worker.GONE
        return [self._timers.set(TimerKind.LAST_WORDS, LAST_WORDS_SECONDS)]

    def pulsed(self, pulsed: s.Pulsed) -> Instructions:
        """A look at the worker's pulse. An attached program is nobody's to judge."""
        is_ours = self.worker not in (Worker.ABSENT, Worker.GONE) and not self._view.is_attached
        if pulsed.gone and self.worker is Worker.READY and self._watch.hung is None:
            return self._miss(pulsed.gone, pulsed.now)
        return self._watch.look(pulsed) if is_ours and not self._view.state.is_final else []

    def dumped(self, dumped: s.Dumped) -> Instructions:
        """The stacks of a worker that hangs are saved; it may have gone meanwhile."""
        return [] if self.worker in (Worker.ABSENT, Worker.GONE) else self._watch.dumped(dumped)

    def bury(self, now: float) -> Instructions:
        """The last words are read, and said nothing of a result."""
        self.worker = Worker.ABSENT
        last = self.last_exit
        told = self._bulletin.tell(
            "worker.died", now, level="warning", reason=outcome.reason_of(last), last_lines=last.last_lines
        )
        return [told]

    def recover(self, now: float) -> Instructions:
        """Start another worker after a while, or give up."""
        view, restart = self._view, self._view.config.restart
        if self._is_rolling_back:
            return self._roll_back(now)
        self._crashes += 1
        if self._crashes > outcome.most_restarts(view):
            return self.end(outcome.gave_up(view, self.last_exit), now)
        kind = "hung" if self._watch.hung is not None else outcome.kind_of(self.last_exit)
        out = self._lose(kind, outcome.reason_of(self.last_exit), now)
        wait = outcome.backoff_seconds(restart, self._crashes)
        return [*out, self._timers.set(TimerKind.BACKOFF, wait)]

    def _roll_back(self, now: float) -> Instructions:
        """The worker left to begin again from its last checkpoint: no crash, and no reason to wait."""
        self._is_rolling_back = False
        out = self._lose("rolled_back", "rolled back to the last checkpoint", now)
        return [*out, self._timers.set(TimerKind.BACKOFF, 0.0)]

    def _lose(self, kind: str, reason: str, now: float) -> Instructions:
        """Count a restart, keep for the next worker what this one was asked for, and say why it is needed."""
        view = self._view
        if self._is_missing:
            self._is_missing = False
            return []
        if kind != "rolled_back":
            view.lately.restarted(now)
        view.restarts[kind] = view.restarts.get(kind, 0) + 1
        out = self._desk.lose(hold=view.hold if view.state is JobState.PAUSED else None)
        return [*out, *self._bulletin.move(JobState.RECOVERING, reason, now)]

    def end(self, ending: m.Finished, now: float) -> Instructions:
        """The run has a result; the worker, where there is one, has a while to leave."""
        view = self._view
        view.result = ending
        self._timers.clear()
        if self.worker is Worker.GONE:
            self.worker = Worker.ABSENT
        way = outcome.way_to(view.state, JobState(ending.result))
        was = view.state_reason if view.state is JobState.STOPPING else ""
        reason = ending.message or was
        out = [line for state in way for line in self._bulletin.move(state, reason, now)]
        out += self._desk.close(objections.over(view.state), outcome.stopped(view))
        if self.worker is not Worker.ABSENT and view.is_attached:
            out.append(s.Kill(gently=True))  # the program may live on: it is let go of
        elif self.worker is not Worker.ABSENT:
            out.append(self._timers.set(TimerKind.LEAVING, LEAVING_SECONDS))
        return out

    # Reports.

    def reported(self, reported: s.Reported) -> Instructions:
        """What a worker said: told on, entered in the view where it is news, and acted on."""
        report, now = reported.report, reported.now
        if reported.rank and not isinstance(report, m.Finished):
            return self._of_peer(reported)
        out: Instructions = [] if isinstance(report, m.Snapshot) else [self._bulletin.announce(report, now)]
        if not is_news(self._view, self.worker, report, was_ready=self.was_ready):
            return out
        observe(self._view, reported.rank, report, now)
        return out + self._follow(report, now)

    def _of_peer(self, reported: s.Reported) -> Instructions:
        """Ranks other than 0 have figures of their own, and last words; what happens, rank 0 tells for all."""
        report, now = reported.report, reported.now
        if isinstance(report, m.Hello):
            self._watch.meet(report.rank, report.pid)
        out: Instructions = [] if isinstance(report, m.Snapshot) else [self._bulletin.announce(report, now)]
        has_effect = isinstance(report, m.Snapshot | m.Applied)
        if not has_effect or not is_news(self._view, self.worker, report, was_ready=self.was_ready):
            return out
        if isinstance(report, m.Applied):
            return out + self._applied(report, now)
        observe(self._view, reported.rank, report, now)
        return out

    def _miss(self, gone: tuple[int, ...], now: float) -> Instructions:
        """Ranks are gone: nothing is trained until torchrun, which has seen it too, has started all of them again."""
        is_training = self._view.state in (JobState.RUNNING, JobState.PAUSED)
        if not is_training or not self._view.config.distributed.has_agent:
            return []
        self._desk.shut()
        ranks = ", ".join(map(str, gone))
        out = self._lose("rank_lost", f"rank{'s' * (len(gone) > 1)} {ranks} lost", now)
        self._is_missing = True
        return out

    def _regrouped(self, now: float) -> Instructions:
        """torchrun has started all ranks again, since one was lost: they go on from the last checkpoint."""
        view = self._view
        self._crashes += view.leader is None  # it knows of checkpoints, and gives up for all
        self._desk.shut()
        if view.state is JobState.STOPPING or self._crashes > view.config.restart.max_restarts:
            return [s.Kill(gently=False)]
        out = self._lose("rank_lost", "a rank was lost", now)
        self.spawn()  # as if we had: what it asks for, torchrun has done
        return [*out, *self._bulletin.move(JobState.STARTING, "ranks restarted", now), *self._brief()]

    def _follow(self, report: m.Report, now: float) -> Instructions:
        match report:
            case m.Hello() if self.worker is not Worker.LOADING:
                return self._regrouped(now)
            case m.Hello():
                self._watch.meet(report.rank, report.pid)
                return self._brief()
            case m.Ready():
                return self._welcome(report, now)
            case m.Snapshot():
                self._sampled(report, now)
            case m.Applied():
                return self._applied(report, now)
            case m.Refused():
                return self._desk.refused(report)
            case m.Saved():
                self._crashes = 0
                self._watch.saved(report.seconds)
                return self._desk.saved(report)
            case m.SaveFailed():
                return self._desk.save_failed(report)
            case m.Holding():
                moves = self._move_from(JobState.RUNNING, JobState.PAUSED, report.reason, now)
                return moves + self._desk.held(m.Pause, report.request_id, JobState.PAUSED)
            case m.Going():
                moves = self._move_from(JobState.PAUSED, JobState.RUNNING, "", now)
                return moves + self._desk.held(m.Resume, report.request_id, JobState.RUNNING)
            case m.Finished():
                return self.end(report, now)
            case m.RolledBack():
                self._is_rolling_back = True
            case (
                m.Joined() | m.SetAside() | m.FellBack() | m.Skipped() | m.ScaleMoved() | m.LimitReached() | m.Widened()
                | m.Split() | m.Diverged() | m.Quarantined() | m.ScaleStuck() | m.Evaluated() | m.Warned() | m.Lost()
            ):  # fmt: skip
                pass
            case _:
                assert_never(report)
        return []

    def _brief(self) -> Instructions:
        """Order the worker to start; the ranks of a node that follows get that order from rank 0."""
        self.worker = Worker.BRIEFED
        if self._view.state is JobState.STOPPING:
            return []
        if self._view.leader is not None:
            return self._hand_on()
        return [s.SendOrder(self.chronicle.start(self._view, self._desk.brief()))]

    def _welcome(self, ready: m.Ready, now: float) -> Instructions:
        self.worker, self.was_ready = Worker.READY, True
        self.rate.clear()
        if self._view.leader is not None:
            self._crashes = 0
        if self._view.state is JobState.STOPPING:
            return []
        reason = f"resumed at window {ready.window}" if ready.resumed else ""
        return self._bulletin.move(JobState.RUNNING, reason, now) + self._desk.open()

    def _hand_on(self) -> Instructions:
        """What a rank here left behind is for the leader's journal: the new group does it together, so it gets there."""
        left = self._left
        if left is None:
            return []
        assert isinstance(left.action, m.Divide), "nothing else is left to a journal that is elsewhere"
        request_id = f"node:divide-{self._view.boot}-{left.window}"
        act = m.Act(request_id=request_id, action=left.action, author=left.author, reason=left.reason)
        return [s.SendOrder(act)]

    def _applied(self, report: m.Applied, now: float) -> Instructions:
        """What is repeated was answered; what is new is recorded. The journal is the leader's."""
        if self._view.leader is not None:
            if isinstance(report.applied.action, m.Divide):
                self._left = None if report.applied.request_id else report.applied
            return []
        if not self.chronicle.enter(report, self._view, now):
            return []
        out, done = self._desk.applied(report), report.applied
        if isinstance(done.action, m.Divide):
            about = {"window": done.window, "parts": done.action.parts, "message": done.reason}
            out.append(self._bulletin.tell("window.split", now, level="warning", **about))
        return out

    def _sampled(self, snapshot: m.Snapshot, now: float) -> None:
        """A worker that goes on has left nothing behind: what looked like it was repeated from the journal."""
        self.rate.add(now, snapshot)
        if self._left is not None and snapshot.window > self._left.window:
            self._left = None

    def _move_from(self, start: JobState, to: JobState, reason: str, now: float) -> Instructions:
        return self._bulletin.move(to, reason, now) if self._view.state is start else []
