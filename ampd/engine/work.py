"""How long a rank works on windows by itself: from when the group lets it go until it has gradients to send.

Ranks wait for each other in every window, so all of them take as long as the slowest one; what tells it from the others is
the time in which it waited for nobody. On CUDA that time is the device's, between two events on its stream, since the host
only queues: an event is read when it has passed, never waited for.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

import torch


class Work(Protocol):
    """A clock of one rank; `seconds` is cumulative."""

    @property
    def seconds(self) -> float:
        """What is known by now; no host sync."""
        ...

    def begin(self) -> None:
        """Nobody is waited for from here on."""
        ...

    def end(self) -> None:
        """The others are."""
        ...


class HostWork:
    """On the CPU: the clock of the process."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._begun: float | None = None

    @property
    def seconds(self) -> float:
        """All of it is known."""
        return self._seconds

    def begin(self) -> None:
        """From now."""
        self._begun = time.perf_counter()

    def end(self) -> None:
        """Until now, where it has begun."""
        if self._begun is not None:
            self._seconds += time.perf_counter() - self._begun
            self._begun = None


class DeviceWork:
    """On CUDA: what the current stream was busy with, and idle for want of."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._begun: torch.cuda.Event | None = None
        self._spans: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @property
    def seconds(self) -> float:
        """What the device has come to."""
        while self._spans and self._spans[0][1].query():  # type: ignore[no-untyped-call]  # torch's
            begun, ended = self._spans.popleft()
            self._seconds += begun.elapsed_time(ended) / 1000
        return self._seconds

    def begin(self) -> None:
        """When the stream comes here."""
        self._begun = _marked()

    def end(self) -> None:
        """Until the stream comes here."""
        if self._begun is not None:
            self._spans.append((self._begun, _marked()))
            self._begun = None


def work_on(device: torch.device) -> Work:
    """The clock that fits a device."""
    return DeviceWork() if device.type == "cuda" else HostWork()


def _marked() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
    event.record()
    return event
