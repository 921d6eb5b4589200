"""The last events of a boot, for a follower that missed some: PUB sockets drop in silence, so every event is kept here.

Bounded: at a hundred events a second the ring holds the last minute and a half, and a follower that was away for
longer is told what it lost. A window that falls back is one event, so a calm job keeps days.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from ampd.core.protocol import Event

MOST_KEPT = 10_000
"""About 5 MB at worst."""


class Ring:
    """Events with consecutive numbers, the oldest of which are forgotten."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._events: deque[Event] = deque(maxlen=most)

    def add(self, event: Event) -> None:
        """Keep an event; its number follows the last one's."""
        assert event.seq == self.last + 1, f"event {event.seq} after {self.last}"
        self._events.append(event)

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept, or of the first that will be."""
        return self._events[0].seq if self._events else 1

    @property
    def last(self) -> int:
        """The number of the newest event; 0 before there is one."""
        return self._events[-1].seq if self._events else 0

    def after(self, since: int, most: int) -> tuple[Event, ...]:
        """The first `most` of the events after number `since`; the oldest that are kept where it is before them."""
        skip = max(0, since + 1 - self.first)
        return tuple(islice(self._events, skip, skip + most))
