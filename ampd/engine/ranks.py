"""What the engine asks of the processes of a job, and the answer of a process that is alone: it costs nothing.

The group's answer is in `distributed`. All ranks of a group call the same methods in the same order, whatever they
find: a collective that one of them skips is a hang.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn, optim

from ampd.core import messages as m
from ampd.engine.window import MicroBatch
from ampd.engine.workload import HasLoss, Workload

T = TypeVar("T")
Weights = Mapping[str, Any]
Moments = Mapping[int, Mapping[str, Any]]
"""An optimizer's state, by the number of the parameter in its groups."""


class Orders(Protocol):
    """Where a loop looks for orders; a queue is one."""

    def empty(self) -> bool:
        """Whether there is none to get now."""
        ...

    def get(self) -> m.Order:
        """The oldest; only after `empty` has said that there is one."""
        ...


class Heard(NamedTuple):
    """Agreed figures on the host, and whether an error kept some rank from giving its own."""

    figures: list[float]
    was_struck: bool = False


class Peers(Protocol):
    """What the writers of several ranks talk over, each in its own thread."""

    rank: int
    world: int

    def gather(self, content: bytes) -> list[bytes]:
        """What every rank gives, by rank; waits for all of them."""
        ...


class Ranks(Protocol):
    """The processes of a job, seen from one of them."""

    rank: int
    world: int
    is_sharded: bool
    """No rank has the whole model: a pass that an error cut short cannot be made again."""

    @property
    def worked(self) -> float:
        """Seconds in which this rank waited for no other; 0 where there is none, and where that cannot be told."""
        ...

    def place(self, workload: Workload, device: torch.device) -> Sequence[nn.Parameter]:
        """Put the model on the device, in training mode; returns what this rank trains of it."""
        ...

    def share(self, micro_batch: MicroBatch) -> tuple[MicroBatch, float]:
        """This rank's part of a micro-batch, and how much its mean loss counts in the mean over ranks."""
        ...

    def passes(self, micro_batch: MicroBatch, split: int) -> int:
        """In how many passes each rank runs its part of a micro-batch that is split."""
        ...

    def join(self, workload: HasLoss, model: nn.Module, *, accumulate: bool) -> HasLoss:
        """The loss whose backward pass averages gradients over ranks; `accumulate` allows `accumulating` to wait."""
        ...

    def accumulating(self, *, parts: bool = False) -> AbstractContextManager[object]:
        """The scope of passes whose gradients stay here until a later pass sends all of them.

        `parts` of a micro-batch wait in any case: ranks may have different numbers of them.
        """
        ...

    def backward(self, loss: Tensor) -> None:
        """The backward pass; out of `accumulating` it waits for the other ranks."""
        ...

    def kept(self, error: RuntimeError) -> RuntimeError:
        """The error to mend together with the other ranks; raises it where that cannot be."""
        ...

    def foretell(self, losses: Sequence[Tensor], strays: Callable[[], Tensor]) -> None:
        """Say a window's losses, scalars, and strays right before its last pass, whose time hides how long that takes."""
        ...

    def stand_in(self, micro_batches: int, losses: Tensor) -> None:
        """Send gradients for so many micro-batches that could not be run, so that nobody waits for them.

        `losses` stand for those of the window, one for each micro-batch.
        """
        ...

    def collect(self) -> None:
        """Put the gradients of a window where those of `place` have theirs, after the last pass."""
        ...

    def weights(self, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
        """The weights that are whole in this moment, of those that `place` gave."""
        ...

    def using(self, act: Callable[[], T]) -> T:
        """Do what runs the model outside of its loss."""
        ...

    def align(self, tensors: Callable[[], Sequence[Tensor]]) -> None:
        """Make tensors what they are on rank 0; no host sync."""
        ...

    def agree(self, figures: Tensor, losses: int, *, is_struck: bool) -> Tensor:
        """Figures of which the first `losses` are means over ranks, and NaN where any rank's was not finite; strays are last.

        Where a rank is struck all of them are NaN on all ranks.
        """
        ...

    def hear(self, figures: list[float]) -> Heard:
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

    def to_save(self, model: nn.Module, optimizer: optim.Optimizer) -> tuple[Weights, Moments]:
        """What this rank is to save of both: all of it, its rows, or nothing."""
        ...

    def to_load(
        self, weights: Weights, moments: Moments, model: nn.Module, optimizer: optim.Optimizer
    ) -> tuple[Weights, Moments]:
        """What this rank loads of a saved state."""
        ...

    def beside(self) -> Peers | None:
        """Where every rank has rows to save: a channel beside this one, for the threads that do."""
        ...


class Whole:
    """A rank that has all weights."""

    def place(self, workload: Workload, device: torch.device) -> Sequence[nn.Parameter]:
        """All of it."""
        return placed(workload, device)

    def weights(self, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
        """All of them, always."""
        return parameters

    def using(self, act: Callable[[], T]) -> T:
        """The model is whole."""
        return act()

    def to_load(
        self, weights: Weights, moments: Moments, model: nn.Module, optimizer: optim.Optimizer
    ) -> tuple[Weights, Moments]:
        """All of it."""
        return weights, moments

    def beside(self) -> Peers | None:
        """There is nothing to save beside what one rank saves."""
        return None


class Alone(Whole):
    """The one process of a job."""

    rank = 0
    world = 1
    is_sharded = False
    worked = 0.0

    def __init__(self, orders: Orders | None = None) -> None:
        self._orders: Orders = queue.SimpleQueue() if orders is None else orders

    def share(self, micro_batch: MicroBatch) -> tuple[MicroBatch, float]:
        """All of it."""
        return micro_batch, 1.0

    def passes(self, micro_batch: MicroBatch, split: int) -> int:
        """As many as are asked for."""
        return split

    def join(self, workload: HasLoss, model: nn.Module, *, accumulate: bool) -> HasLoss:
        """The loss as it is."""
        return workload

    def accumulating(self, *, parts: bool = False) -> AbstractContextManager[object]:
        """Nothing to hold back."""
        return nullcontext()

    def collect(self) -> None:
        """They are there."""

    def backward(self, loss: Tensor) -> None:
        """Nobody to wait for."""
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def kept(self, error: RuntimeError) -> RuntimeError:
        """It is mended where it is caught."""
        raise error

    def foretell(self, losses: Sequence[Tensor], strays: Callable[[], Tensor]) -> None:
        """To nobody."""

    def stand_in(self, micro_batches: int, losses: Tensor) -> None:
        """Nobody waits."""

    def align(self, tensors: Callable[[], Sequence[Tensor]]) -> None:
        """They are."""

    def agree(self, figures: Tensor, losses: int, *, is_struck: bool) -> Tensor:
        """With itself."""
        return figures

    def hear(self, figures: list[float]) -> Heard:
        """All of them are for the caller."""
        return Heard(figures)

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

    def to_save(self, model: nn.Module, optimizer: optim.Optimizer) -> tuple[Weights, Moments]:
        """As they are."""
        return state_of(model, optimizer)


def placed(workload: Workload, device: torch.device) -> list[nn.Parameter]:
    """The whole model on the device, in training mode; returns its trainable parameters."""
    model = workload.model.to(device).train()
    return [p for p in model.parameters() if p.requires_grad]


def state_of(model: nn.Module, optimizer: optim.Optimizer) -> tuple[Weights, Moments]:
    """The state of a whole model and of its optimizer, shared with them."""
    return model.state_dict(), optimizer.state_dict()["state"]
