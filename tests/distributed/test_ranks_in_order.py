"""Who is which rank: torchrun numbers ranks by the addresses of their nodes, and the leader's come first all the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]  # torch does not list its own names

from ampd.engine.distributed import _behind_leader


@pytest.mark.parametrize("leading", [0, 2, 4])
def test_the_ranks_of_the_leading_node_come_first(leading: int) -> None:
    """Three nodes of two ranks: whichever leads, its ranks are 0 and 1, and neighbours stay neighbours."""
    store, world = HashStore(), 6

    def place(rank: int) -> int:
        return _behind_leader(store, rank, world, is_first=rank == leading)

    with ThreadPoolExecutor(world) as ranks:
        numbers = list(ranks.map(place, range(world)))

    assert sorted(numbers) == list(range(world))
    assert numbers[leading : leading + 2] == [0, 1]
