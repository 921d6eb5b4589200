"""What a workload is: a model, its windows, a loss. Everything else has a default of the daemon's.

The optimizer, the schedule and the data order are the daemon's. `loss` draws randomness from torch's generators only
(declare `host_rng` in the spec otherwise) and never changes a micro-batch: a window may be run twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ampd.core.config import JobConfig
from ampd.core.order import DataOrder
from ampd.engine.window import MicroBatch
from ampd.errors import PluginError


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadContext:
    """What a workload is built with. The model is built on the host; the daemon moves it to `device`."""

    config: JobConfig
    device: torch.device

    @property
    def batch_size(self) -> int:
        """Samples in a micro-batch."""
        return self.config.batch.size

    @property
    def accumulate(self) -> int:
        """Micro-batches in a window."""
        return self.config.batch.accumulate

    def order(self, size: int) -> DataOrder:
        """The job's data order over `size` samples: a permutation for each epoch, any position in O(1)."""
        return DataOrder(size, self.config.job.seed)


class HasLoss(Protocol):
    """What one execution of a window needs of a workload."""

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The mean loss of a micro-batch (a scalar), on the device, under the attempt's autocast."""
        ...


class Workload(HasLoss, Protocol):
    """The least that can be trained."""

    model: nn.Module
    windows_per_epoch: int

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The windows of `epoch` from position `start` on; pure: the same arguments give the same windows."""
        ...


_NEEDED = ("model", "windows_per_epoch", "windows", "loss")


def required(made: Any, reference: str) -> Workload:
    """What `reference` has built, where it has all that a workload needs; raises PluginError."""
    missing = [name for name in _NEEDED if not hasattr(made, name)]
    if missing:
        raise PluginError(
            f"plugin reference {reference!r} built something of type {type(made).__name__} without {', '.join(missing)}; "
            f"a workload has {', '.join(_NEEDED)}"
        )
    if not isinstance(made.windows_per_epoch, int) or made.windows_per_epoch < 1:
        raise PluginError(
            f"plugin reference {reference!r} built a workload with windows_per_epoch = {made.windows_per_epoch!r}; "
            "expected a whole number of at least 1"
        )
    workload: Workload = made
    return workload


@runtime_checkable
class Evaluating(Protocol):
    """A workload that can measure itself on held-out data."""

    def evaluate(self) -> Mapping[str, float]:
        """Figures by name, such as {"loss": 1.5}; the model is in eval mode, under no_grad and autocast."""
        ...


@runtime_checkable
class Randomised(Protocol):
    """A workload whose loss draws from torch generators of its own; they are rewound and saved with the rest."""

    generators: Mapping[str, torch.Generator]


@runtime_checkable
class Sharding(Protocol):
    """A workload that says which modules fsdp2 gathers one at a time; else they are found, see `engine.sharded`."""

    def shards(self) -> Iterable[nn.Module]:
        """Modules that run through their forward and lie apart; what is in none is gathered for the whole window."""
        ...


@runtime_checkable
class Capturing(Protocol):
    """A workload with state outside the model's parameters and buffers; rewound and saved with the rest."""

    def capture(self) -> dict[str, Any]:
        """A copy of that state: tensors or plain data that JSON can hold."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a captured state."""
        ...
