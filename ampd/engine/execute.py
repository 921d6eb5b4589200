"""The innermost ring: the dozen lines of training that every reader looks for.

Clear the gradients; for each micro-batch run forward and loss in the attempt's context, and backward outside of it
(autocast must never cover backward). The loss of a window is the mean over its micro-batches. No host sync.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ampd.engine.window import Attempt, Outcome
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
        losses = [self._run(attempt, index) for index in range(len(attempt.window.micro_batches))]
        return Outcome(
            attempt=attempt, losses=torch.stack(losses) if len(losses) > 1 else losses[0].reshape(1)
        )

    def _run(self, attempt: Attempt, index: int) -> Tensor:
        micro_batch = attempt.window.micro_batches[index].to(self.device)
        with attempt.forward_context():
            loss = self.workload.loss(micro_batch)
        self._share(loss, attempt).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return loss.detach().float()

    @staticmethod
    def _share(loss: Tensor, attempt: Attempt) -> Tensor:
        """This micro-batch's share of the window's loss, scaled where SCALE asked for it."""
        count = len(attempt.window.micro_batches)
        share = loss if count == 1 else loss / count
        return share if attempt.loss_scale is None else share * attempt.loss_scale


def clear_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Drop all gradients, so that the next backward allocates instead of adding."""
    for parameter in parameters:
        parameter.grad = None
