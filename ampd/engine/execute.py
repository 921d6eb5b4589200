"""The innermost ring: the dozen lines of training that every reader looks for.

Clear the gradients; for each micro-batch run forward and loss in the attempt's context, and backward outside of it
(autocast must never cover backward). The loss of a window is the mean over its micro-batches. No host sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ampd.engine.window import Attempt, MicroBatch, Outcome
from ampd.engine.workload import HasLoss


@dataclass(frozen=True, slots=True)
class Execute:
    """Runs an attempt's forward and backward passes; leaves (scaled) gradients in the parameters."""

    workload: HasLoss
    parameters: Sequence[nn.Parameter]
    device: torch.device

    def __call__(self, attempt: Attempt) -> Outcome:
        """The unjudged outcome of an attempt."""
        clear_gradients(self.parameters)
        micro_batches = attempt.window.micro_batches
        if attempt.split > 1:
            losses = [self._run_split(attempt, micro_batch) for micro_batch in micro_batches]
        else:
            losses = [self._run(attempt, micro_batch) for micro_batch in micro_batches]
        return Outcome(
            attempt=attempt, losses=torch.stack(losses) if len(losses) > 1 else losses[0].reshape(1)
        )

    def _run(self, attempt: Attempt, micro_batch: MicroBatch, weight: float = 1.0) -> Tensor:
        """Forward and backward of a micro-batch that counts `weight` of a micro-batch; returns its mean loss."""
        on_device = micro_batch if self.device.type == "cpu" else micro_batch.to(self.device)
        with attempt.forward_context():
            loss = self.workload.loss(on_device)
        share = loss if weight == 1.0 else loss * weight
        count = len(attempt.window.micro_batches)
        share = share if count == 1 else share / count
        share = share if attempt.loss_scale is None else share * attempt.loss_scale
        share.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss.detach().float()

    def _run_split(self, attempt: Attempt, micro_batch: MicroBatch) -> Tensor:
        """The same in parts, for want of memory; each part's mean loss counts by its samples."""
        weights = [part.samples / micro_batch.samples for part in micro_batch.parts(attempt.split)]
        parts = zip(micro_batch.parts(attempt.split), weights, strict=True)
        return torch.stack([self._run(attempt, part, weight) * weight for part, weight in parts]).sum()


def clear_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Drop all gradients, so that the next backward allocates instead of adding."""
    for parameter in parameters:
        parameter.grad = None
