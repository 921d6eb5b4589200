"""Where the time within a window goes: data, forward, backward, optimizer and all else, in about one window a second.

Marks and not scopes: each says what begins, and what it ends with is the next one, so that every moment of a sampled window
belongs to exactly one activity, a replay's to the same as the attempt's, and nothing has to be subtracted.

A mark is a time of the host on the CPU. On CUDA it is an event in the stream, since the host is long gone when the device
gets there; what is marked as data is then the time in which the device had nothing to do for want of it. Nobody waits for an
event: a sample is added up when its last mark has been passed, and until then no other is taken. A window that is not sampled
costs a look at the clock, which is why all are not: events for each micro-batch of each window would be felt. Nor is one in
which kernels are built, since it is like no other.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any, Protocol

import torch

from ampd.core.activity import Activity, Sampled

EVERY_SECONDS = 1.0


class Clock(Protocol):
    """Marks in the order of execution, and the seconds between two of them."""

    def mark(self) -> Any:
        """A mark here."""
        ...

    def is_past(self, mark: Any) -> bool:
        """Whether execution has come by; does not wait."""
        ...

    def between(self, begin: Any, end: Any) -> float:
        """Seconds between two marks that are past."""
        ...


class HostClock:
    """The host's own time: what is marked is past."""

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def is_past(self, mark: float) -> bool:
        """It is."""
        return True

    def between(self, begin: float, end: float) -> float:
        """Seconds of the host."""
        return end - begin


class DeviceClock:
    """Events in the current CUDA stream."""

    def mark(self) -> torch.cuda.Event:
        """Where the stream is now."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
        event.record()
        return event

    def is_past(self, mark: torch.cuda.Event) -> bool:
        """Whether the device has come by."""
        return bool(mark.query())  # type: ignore[no-untyped-call]  # torch's

    def between(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Seconds of the device."""
        return float(begin.elapsed_time(end)) / 1000


class Breakdown:
    """Looks into a window now and then, and adds up in `sampled`; for the loop's thread."""

    def __init__(
        self,
        clock: Clock | None = None,
        sampled: Sampled | None = None,
        *,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self.sampled = sampled if sampled is not None else Sampled()
        self.clock = clock or HostClock()
        self.every_seconds = every_seconds
        self._due = 0.0
        self._open: list[tuple[Activity, Any]] | None = None  # the marks of the window that is sampled
        self._ended: list[tuple[Activity, Any]] = []

    def begin(self) -> None:
        """A window begins, with waiting for its data; one before it that raised is no whole sample, and forgotten."""
        self._open = None
        now = time.perf_counter()
        if now >= self._due and self._has_added_up():
            self._due = now + self.every_seconds
            self._open = []
            self.enter(Activity.DATA)

    def fetched(self) -> None:
        """The window's data is in hand."""
        self.enter(Activity.OTHER)

    def enter(self, activity: Activity) -> None:
        """From here on, in a window that is sampled."""
        if self._open is not None:
            self._open.append((activity, self.clock.mark()))

    def end(self) -> None:
        """The window is over."""
        if self._open is not None:
            self.enter(Activity.OTHER)
            self._ended, self._open = self._open, None
            self._has_added_up()

    def _has_added_up(self) -> bool:
        """Add up the sample that has ended, if the device has come to its end; whether none is left."""
        if not self._ended:
            return True
        if not self.clock.is_past(self._ended[-1][1]):
            return False
        seconds = dict.fromkeys(Activity, 0.0)
        for (activity, begin), (_next, end) in pairwise(self._ended):
            seconds[activity] += self.clock.between(begin, end)
        self.sampled.add(seconds)
        self._ended = []
        return True


def clock_of(device: torch.device) -> Clock:
    """The clock that fits a device."""
    return DeviceClock() if device.type == "cuda" else HostClock()
