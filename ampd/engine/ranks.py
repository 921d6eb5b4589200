"""What the engine asks of the processes of a job, and the answer of a process that is alone: it costs nothing.

The group's answer is in `distributed`. All ranks of a group call the same methods in the same order, whatever they
find: a collective that one of them skips is a hang.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn

from ampd.core import messages as m
from ampd.engine.window import MicroBatch
from ampd.engine.workload import HasLoss


class Orders(Protocol):
    """Where a loop looks for orders; a queue is one."""

    def empty(self) -> bool:
        """Whether there is none to get now."""
        ...

    def get(self) -> m.Order:
        """The oldest; only after `empty` has said that there is one."""
        ...


class Ranks(Protocol):
    """The processes of a job, seen from one of them."""

    rank: int
    world: int

    def share(self, micro_batch: MicroBatch) -> tuple[MicroBatch, float]:
        """This rank's part of a micro-batch, and how much its mean loss counts in the mean over ranks."""
        ...

    def join(self, workload: HasLoss, model: nn.Module, *, accumulate: bool) -> HasLoss:
        """The loss whose backward pass averages gradients over ranks; `accumulate` allows `accumulating` to wait."""
        ...

    def accumulating(self) -> AbstractContextManager[object]:
        """The scope of passes whose gradients stay here until a later pass sends all of them."""
        ...

    def align(self, tensors: Callable[[], Sequence[Tensor]]) -> None:
        """Make tensors what they are on rank 0; no host sync."""
        ...

    def agree(self, figures: Tensor, losses: int) -> Tensor:
        """Figures of which the first `losses` are means over ranks, and NaN where any rank's was not finite."""
        ...

    def hear(self, figures: list[float]) -> list[float]:
        """Agreed figures on the host, without what was for the group itself."""
        ...

    def confer(self) -> None:
        """Ask rank 0 for orders while no window runs."""
        ...

    def orders(self) -> Orders:
        """Orders that every rank gets at the same boundary."""
        ...

    def as_first(self, claim: bool) -> bool:
        """What rank 0 says."""
        ...

    def all(self, claim: bool) -> bool:
        """Whether every rank says so."""
        ...

    def spread(self, content: bytes) -> bytes:
        """What rank 0 gives."""
        ...

    def gather(self, content: bytes) -> list[bytes]:
        """What every rank gives, by rank."""
        ...


class Alone:
    """The one process of a job."""

    rank = 0
    world = 1

    def __init__(self, orders: Orders | None = None) -> None:
        self._orders: Orders = queue.SimpleQueue() if orders is None else orders

    def share(self, micro_batch: MicroBatch) -> tuple[MicroBatch, float]:
        """All of it."""
        return micro_batch, 1.0

    def join(self, workload: HasLoss, model: nn.Module, *, accumulate: bool) -> HasLoss:
        """The loss as it is."""
        return workload

    def accumulating(self) -> AbstractContextManager[object]:
        """Nothing to hold back."""
        return nullcontext()

    def align(self, tensors: Callable[[], Sequence[Tensor]]) -> None:
        """They are."""

    def agree(self, figures: Tensor, losses: int) -> Tensor:
        """With itself."""
        return figures

    def hear(self, figures: list[float]) -> list[float]:
        """All of them are for the caller."""
        return figures

    def confer(self) -> None:
        """Its own queue is looked at anyway."""

    def orders(self) -> Orders:
        """Its own queue."""
        return self._orders

    def as_first(self, claim: bool) -> bool:
        """It is the first."""
        return claim

    def all(self, claim: bool) -> bool:
        """It is all there are."""
        return claim

    def spread(self, content: bytes) -> bytes:
        """To nobody else."""
        return content

    def gather(self, content: bytes) -> list[bytes]:
        """From nobody else."""
        return [content]
