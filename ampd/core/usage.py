"""What a rank has used up since its process began: cumulative, as all that a snapshot holds, so that a lost one loses nothing.

Kept by rank and not summed by the ranks themselves: each tells its own, none waits for another, and a page can still say which
of them it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """`allocator_retries`: times that the device's allocator gave its cache back to be able to go on; `shortages`: times that
    memory ran out all the same."""

    allocator_retries: int = 0
    shortages: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum, as over two processes one after the other."""
        return Usage(
            allocator_retries=self.allocator_retries + other.allocator_retries,
            shortages=self.shortages + other.shortages,
        )


def together(before: Mapping[int, Usage], since: Mapping[int, Usage]) -> dict[int, Usage]:
    """What each rank used up in two times, one after the other; a rank that is gone keeps what it used."""
    ranks = (*before, *(rank for rank in since if rank not in before))
    return {rank: before.get(rank, Usage()).plus(since.get(rank, Usage())) for rank in ranks}
