"""Judges whether the present worker gets on: looks at its pulse in, and at most one verdict of a hang out.

    Pulsed (ten times a second) --over budget--> DumpStacks --> Dumped --> Kill, and "worker.hung" is told

What a hang is cannot be asked of the worker: the thread that would answer needs the interpreter, which a C call may
hold for ever, and one that answers says nothing of the step loop (a heartbeat thread keeps a wedged loop looking
alive). So the loop itself declares phases in shared memory, and silence is judged, by phase.

The budget of a phase is learned: `watchdog.factor` times the longest silence in it lately, between `least_seconds`
and the phase's own bound, which holds until there is something to learn from. A bound alone must be set for the
slowest job, and finds the hang of a fast one hours late. Two phases are not what they seem: `init` is not learned, since
a resume loads what a first start does not have; and `checkpoint` is learned from what the writer took, since most of
the time the loop only copies, but waits for the disk in the end.

Time is what the daemon observed: each look brings the monotonic seconds since the last, and counts for little if it
comes late. A daemon that was stopped, or a machine that was asleep, has seen no silence, and wall clocks do not enter.
"""

from __future__ import annotations

from collections import deque
from typing import assert_never

from ampd.core import stimuli as s
from ampd.core.bulletin import Bulletin
from ampd.core.config import WatchdogSection
from ampd.core.lifecycle import JobState
from ampd.core.phase import Phase, Pulse, Standing
from ampd.core.view import JobView

MOST_BETWEEN_LOOKS_SECONDS = 0.5
"""Five looks: a later one means that the daemon itself did not run."""
LATELY_MINUTES = 60
"""What a budget is learned from: so many minutes that were spent in the phase."""


class Longest:
    """The longest of the silences that fill the last hour; bounded memory, whatever their number."""

    def __init__(self) -> None:
        self._by_minute: deque[float] = deque([0.0], maxlen=LATELY_MINUTES)
        self._filled = 0.0

    def add(self, seconds: float) -> None:
        """Take in a silence."""
        if self._filled > 60.0:
            self._by_minute.append(0.0)
            self._filled = 0.0
        self._filled += seconds
        self._by_minute[-1] = max(self._by_minute[-1], seconds)

    @property
    def seconds(self) -> float:
        """How long it was."""
        return max(self._by_minute)


class Budgets:
    """How long a worker may be silent in each phase, from how long it was lately."""

    def __init__(self) -> None:
        self._lately: dict[Phase, Longest] = {}

    def learn(self, phase: Phase, seconds: float) -> None:
        """Take in a silence that ended well."""
        self._lately.setdefault(phase, Longest()).add(seconds)

    def of(self, phase: Phase, section: WatchdogSection) -> float | None:
        """In seconds; None where nothing is judged."""
        if not section.enabled:
            return None
        bound, lately = bound_of(phase, section), self._lately.get(phase)
        if lately is None:
            return bound
        return min(bound, max(section.least_seconds, section.factor * lately.seconds))


_NOT_HEARD = (Phase.INIT, Phase.CHECKPOINT)
"""Phases whose silences teach nothing."""


class Watch:
    """The judgement of one job's workers, one after the other."""

    def __init__(self, view: JobView, bulletin: Bulletin) -> None:
        self.hung: Standing | None = None
        """How the present worker stood when it was given up, or the one whose last words are read."""
        self._view, self._bulletin = view, bulletin
        self._budgets = Budgets()
        self._pulse = Pulse()
        self._seconds = 0.0
        self._pids: dict[int, int] = {}

    def begin(self) -> None:
        """A worker is started. What was learned from the one before still holds."""
        self.hung = None
        self._pulse, self._seconds = Pulse(), 0.0
        self._pids = {}

    def meet(self, rank: int, pid: int) -> None:
        """A rank has said who it is."""
        self._pids[rank] = pid

    def saved(self, seconds: float) -> None:
        """The writer took so long for a checkpoint."""
        self._budgets.learn(Phase.CHECKPOINT, seconds)

    def look(self, pulsed: s.Pulsed) -> list[s.AnyInstruction]:
        """Take in a look at the pulse; asks for the stacks of a worker that is over its budget, once."""
        observed = self._seconds + min(pulsed.elapsed_seconds, MOST_BETWEEN_LOOKS_SECONDS)
        if pulsed.pulse == self._pulse:
            self._seconds = observed
        else:
            if self._pulse.phase not in _NOT_HEARD:
                self._budgets.learn(self._pulse.phase, observed)
            self._pulse, self._seconds = pulsed.pulse, 0.0
        section, phase = self._view.config.watchdog, self._pulse.phase
        standing = Standing(phase, self._seconds, self._budgets.of(phase, section))
        self._view.standing = standing
        is_stopping = self._view.state is JobState.STOPPING  # restart.save_budget_seconds rules there
        if not standing.is_overdue or is_stopping or self.hung is not None:
            return []
        self.hung = standing
        return [s.DumpStacks(tuple(self._pids.values()))]

    def dumped(self, dumped: s.Dumped) -> list[s.AnyInstruction]:
        """The stacks are saved, or could not be: end the worker."""
        if self.hung is None:
            return []
        hung = self.hung
        told = self._bulletin.tell(
            "worker.hung", dumped.now, level="error", phase=hung.phase, seconds=round(hung.seconds, 1),
            budget_seconds=hung.budget_seconds, stacks=dumped.path, note=dumped.note,
        )  # fmt: skip
        return [told, s.Kill(gently=False)]

    @property
    def reason(self) -> str:
        """Why the worker was ended, in words; empty where it was not for a hang."""
        if self.hung is None:
            return ""
        return f"a hang in phase {self.hung.phase}: no progress for {self.hung.seconds:.3g} s"


def bound_of(phase: Phase, section: WatchdogSection) -> float:
    """The longest budget that a phase may have, in seconds."""
    match phase:
        case Phase.INIT:
            return section.init_seconds
        case Phase.COMPILE:
            return section.compile_seconds
        case Phase.WINDOW:
            return section.window_seconds
        case Phase.CHECKPOINT:
            return section.checkpoint_seconds
        case Phase.EVALUATION:
            return section.evaluation_seconds
        case Phase.PAUSED:
            return section.paused_seconds
        case _:
            assert_never(phase)
