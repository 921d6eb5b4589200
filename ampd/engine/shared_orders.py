"""The orders of all ranks at every rank: taken together, when a window's figures said that there are some."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import msgspec

from ampd.core import messages as m
from ampd.engine.ranks import Orders

_ORDERS: msgspec.msgpack.Decoder[list[m.Order]] = msgspec.msgpack.Decoder(list[m.Order])


class Called(Protocol):
    """A group whose ranks are told of orders."""

    is_called: bool

    def gather(self, content: bytes) -> list[bytes]:
        """What every rank gives, by rank."""
        ...


class SharedOrders:
    """The orders of all ranks at every rank: taken together, when the group was told that there are some.

    They are rank 0's, save that any node may be told to stop: then the job stops, with a checkpoint, on all of them.
    """

    def __init__(self, group: Called, own: Orders) -> None:
        self._group = group
        self._own = own
        self._taken: deque[m.Order] = deque()

    def empty(self) -> bool:
        """Whether none is left; a collective where the group was called."""
        if not self._taken and self._group.is_called:
            self._group.is_called = False
            for drained in self._group.gather(msgspec.msgpack.encode(self._drained())):
                self._taken += _ORDERS.decode(drained)
        return not self._taken

    def get(self) -> m.Order:
        """The oldest of those taken."""
        return self._taken.popleft()

    def _drained(self) -> list[m.Order]:
        orders: list[m.Order] = []
        while not self._own.empty():
            orders.append(self._own.get())
        return orders
