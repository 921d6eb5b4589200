"""A workload's loss under DistributedDataParallel.

The loss is wrapped and not the model: DDP has to see the forward pass, and a workload calls its model as it likes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ampd.engine.window import MicroBatch
from ampd.engine.workload import HasLoss


class LossModule(nn.Module):
    """A workload's loss as a module, so that DDP sees the forward pass without wrapping the workload's model."""

    def __init__(self, workload: HasLoss, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._workload = workload

    def forward(self, micro_batch: MicroBatch | None) -> Tensor:
        """Without a micro-batch, a loss that gives every parameter a gradient of zeros."""
        if micro_batch is None:
            return torch.stack([p.sum() * 0.0 for p in self.parameters() if p.requires_grad]).sum()
        return self._workload.loss(micro_batch)


class Averaged:
    """What is run in the place of the workload's own loss."""

    def __init__(self, module: DistributedDataParallel) -> None:
        self._module = module

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The loss, with DDP's hooks around it."""
        loss: Tensor = self._module(micro_batch)
        return loss
