"""The timers that the core has set: at most one of each kind, and only the last setting of it counts.

The shell is never asked to cancel: a timer that was taken back or set anew still fires there, and is stale here.
"""

from __future__ import annotations

from ampd.core.stimuli import SetTimer, Timer, TimerKind


class Timers:
    """The settings that still count."""

    def __init__(self) -> None:
        self._running: dict[TimerKind, Timer] = {}
        self._settings = 0

    def set(self, kind: TimerKind, seconds: float) -> SetTimer:
        """Set a timer, in place of one of the same kind."""
        self._settings += 1
        self._running[kind] = Timer(kind, self._settings)
        return SetTimer(self._running[kind], seconds)

    def drop(self, kind: TimerKind) -> None:
        """Take a timer back."""
        self._running.pop(kind, None)

    def clear(self) -> None:
        """Take all timers back."""
        self._running.clear()

    def take(self, timer: Timer) -> bool:
        """Whether a timer that fired still counts; it does so once."""
        if self._running.get(timer.kind) != timer:
            return False
        del self._running[timer.kind]
        return True
