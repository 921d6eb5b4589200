"""Which ranks of this node are gone without a word: seen by their processes, within two looks.

torchrun sees it as well, and starts all ranks again; but that takes it seconds, in which the last figures would still pass
for a job that runs. Two looks and not one, because ranks die with their agent, and its own exit is the better news.
"""

from __future__ import annotations

import os

from ampd.control.lifeline import PulsePage


class Presence:
    """The ranks of one worker; the event loop's thread only."""

    def __init__(self, page: PulsePage) -> None:
        self._page = page
        self._pids: dict[int, int] = {}
        self._missed: set[int] = set()

    def meet(self, rank: int, pid: int) -> None:
        """A rank has begun, perhaps in the place of one that is gone."""
        self._pids[rank] = pid
        self._missed.discard(rank)

    def gone(self) -> tuple[int, ...]:
        """Those that were not there at this look nor at the one before."""
        now = {
            rank for rank, pid in self._pids.items() if not self._page.has_left(rank) and not _is_there(pid)
        }
        seen_twice, self._missed = now & self._missed, now
        return tuple(sorted(seen_twice))


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
