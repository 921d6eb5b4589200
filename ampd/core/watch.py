"""Judges whether the present worker gets on: looks at its pulse in, and at most one verdict of a hang out.

    Pulsed (ten times a second) --over budget--> DumpStacks --> Dumped --> Kill, and "worker.hung" is told

What a hang is cannot be asked of the worker: the thread that would answer needs the interpreter, which a C call may
hold for ever, and one that answers says nothing of the step loop (a heartbeat thread keeps a wedged loop looking
alive). So the loop itself declares phases in shared memory, and silence is judged, by phase.

The budget of a phase is learned (`core.budgets`). Two phases are not what they seem: `init` is not learned, since a resume
loads what a first start does not have; and `checkpoint` is learned from what the writer took, since most of the time the
loop only copies, but waits for the disk in the end.

In a group one rank that stands still keeps all of them waiting. Each has a pulse of its own, which also says whether it waits for
others; so the one that is named is the one that does not. (Ranks of other nodes are their own daemons' to judge.)

Time is what the daemon observed: each look brings the monotonic seconds since the last, and counts for little if it
comes late. A daemon that was stopped, or a machine that was asleep, has seen no silence, and wall clocks do not enter.
"""

from __future__ import annotations

import msgspec

from ampd.core import stimuli as s
from ampd.core.budgets import Budgets
from ampd.core.bulletin import Bulletin
from ampd.core.lifecycle import JobState
from ampd.core.phase import Phase, Pulse, Standing
from ampd.core.view import JobView

MOST_BETWEEN_LOOKS_SECONDS = 0.5
"""Five looks: a later one means that the daemon itself did not run."""
_NOT_HEARD = (Phase.INIT, Phase.CHECKPOINT)
"""Phases whose silences teach nothing."""


class Silence(msgspec.Struct):
    """One rank's last pulse, and for how long there was no other."""

    pulse: Pulse
    seconds: float = 0.0


class Watch:
    """The judgement of one job's workers, one after the other."""

    def __init__(self, view: JobView, bulletin: Bulletin) -> None:
        self.hung: Standing | None = None
        """How the present worker stood when it was given up, or the one whose last words are read."""
        self._view, self._bulletin = view, bulletin
        self._budgets = Budgets()
        self._silences: dict[int, Silence] = {}
        self._pids: dict[int, int] = {}

    def begin(self) -> None:
        """A worker is started. What was learned from the one before still holds."""
        self.hung = None
        self._silences = {}
        self._pids = {}

    def meet(self, rank: int, pid: int) -> None:
        """A rank has said who it is."""
        self._pids[rank] = pid

    def saved(self, seconds: float) -> None:
        """The writer took so long for a checkpoint."""
        self._budgets.learn(Phase.CHECKPOINT, seconds)

    def look(self, pulsed: s.Pulsed) -> list[s.AnyInstruction]:
        """Take in a look at the pulses; asks for the stacks of all ranks where one is over its budget, once."""
        elapsed = min(pulsed.elapsed_seconds, MOST_BETWEEN_LOOKS_SECONDS)
        pulses = (pulsed.pulse, *pulsed.peers)
        standing = max((self._stand(rank, pulse, elapsed) for rank, pulse in enumerate(pulses)), key=_blame)
        self._view.standing = standing
        is_stopping = self._view.state is JobState.STOPPING  # restart.save_budget_seconds rules there
        if not standing.is_overdue or is_stopping or self.hung is not None:
            return []
        self.hung = standing
        return [s.DumpStacks(tuple(self._pids.values()))]

    def _stand(self, rank: int, pulse: Pulse, elapsed: float) -> Standing:
        """How one rank stands after a look; what it learned from is a silence that has ended."""
        silence = self._silences.setdefault(rank, Silence(Pulse()))
        silence.seconds += elapsed
        if pulse != silence.pulse:
            if silence.pulse.phase not in _NOT_HEARD:
                self._budgets.learn(silence.pulse.phase, silence.seconds)
            silence.pulse, silence.seconds = pulse, 0.0
        budget = self._budgets.of(pulse.phase, self._view.config.watchdog)
        return Standing(pulse.phase, silence.seconds, budget, rank, pulse.is_waiting)

    def dumped(self, dumped: s.Dumped) -> list[s.AnyInstruction]:
        """The stacks are saved, or could not be: end the worker."""
        if self.hung is None:
            return []
        hung = self.hung
        told = self._bulletin.tell(
            "worker.hung", dumped.now, level="error", rank=hung.rank, phase=hung.phase, seconds=round(hung.seconds, 1),
            budget_seconds=hung.budget_seconds, stacks=dumped.path, note=dumped.note,
        )  # fmt: skip
        return [told, s.Kill(gently=False)]

    @property
    def reason(self) -> str:
        """Why the worker was ended, in words; empty where it was not for a hang."""
        if self.hung is None:
            return ""
        whose = f" of rank {self.hung.rank}" * self._view.config.distributed.is_group
        return f"a hang{whose} in phase {self.hung.phase}: no progress for {self.hung.seconds:.3g} s"


def _blame(standing: Standing) -> tuple[bool, bool, float]:
    """Who is to blame for a standstill: of those over their budget one that waits for nobody, and for longest."""
    return standing.is_overdue, not standing.is_waiting, standing.seconds
