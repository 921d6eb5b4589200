"""How long what a worker does may take: learned from how long it took lately, within the bounds of `[watchdog]`.

The budget of a phase is `watchdog.factor` times the longest silence in it lately, between `least_seconds` and the
phase's own bound, which holds until there is something to learn from. A bound alone must be set for the slowest job,
and finds the hang of a fast one hours late.
"""

from __future__ import annotations

from collections import deque
from typing import assert_never

from ampd.core.config import WatchdogSection
from ampd.core.phase import Phase

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
