"""The innermost ring: the dozen lines of training that every reader looks for.

Clear the gradients; for each micro-batch run forward and loss in the attempt's context, and backward outside of it
(autocast must never cover backward). The loss of a window is the mean over its micro-batches. No host sync.

With more than one rank each runs its share of every micro-batch, and gradients travel once, in the window's last backward.
A rank that an error strikes before that sends zeros in the place of its gradients, since the others wait for it there; that
it was struck travels with the figures that are agreed anyway, and the window is mended by all ranks together.
Losses are told to the other ranks before that last backward and not after it, so that they travel while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ampd.core.activity import Activity
from ampd.engine.breakdown import Breakdown
from ampd.engine.ranks import Alone, Ranks
from ampd.engine.window import Attempt, MicroBatch, Outcome
from ampd.engine.workload import HasLoss
from ampd.errors import WorkloadError

Tell = Callable[[Tensor], None]


def _untold(_loss: Tensor) -> None:
    """Of a pass after which others come."""


def _none() -> Tensor:
    """Of a model without buffers."""
    return torch.zeros(1)


@dataclass(frozen=True, slots=True)
class Execute:
    """Runs an attempt's forward and backward passes; leaves (scaled) gradients in the parameters."""

    workload: HasLoss
    parameters: Sequence[nn.Parameter]
    device: torch.device
    ranks: Ranks = field(default_factory=Alone)
    breakdown: Breakdown = field(default_factory=Breakdown)
    strays: Callable[[], Tensor] = _none

    def __call__(self, attempt: Attempt) -> Outcome:
        """The unjudged outcome of an attempt."""
        clear_gradients(self.parameters)
        losses: list[Tensor] = []
        try:
            self._run_all(attempt, losses)
        except RuntimeError as error:
            struck = self.ranks.kept(error)
        else:
            return Outcome(
                attempt=attempt, losses=torch.stack(losses) if len(losses) > 1 else losses[0].reshape(1)
            )
        finally:
            self.breakdown.enter(Activity.OTHER)
        # Only here, with the traceback and the tensors in its frames gone, is there memory for what is sent instead.
        count = len(attempt.window.micro_batches)
        zeros = torch.zeros(count, device=self.device)
        self.ranks.stand_in(count - len(losses), zeros)
        return Outcome(attempt=attempt, losses=zeros, struck=struck)

    def _run_all(self, attempt: Attempt, losses: list[Tensor]) -> None:
        """All micro-batches; `losses` grows with each that was run to its end."""
        *before, last = attempt.window.micro_batches
        if before:
            with self.ranks.accumulating():
                for micro_batch in before:
                    losses.append(self._run_share(attempt, micro_batch))
        losses.append(
            self._run_share(attempt, last, lambda loss: self.ranks.foretell([*losses, loss], self.strays))
        )
        self.ranks.collect()

    def _run(self, attempt: Attempt, micro_batch: MicroBatch, weight: float, tell: Tell) -> Tensor:
        """Forward and backward of what counts `weight` of a micro-batch; returns its share of the loss, told in between."""
        self.breakdown.enter(Activity.DATA)
        on_device = micro_batch if self.device.type == "cpu" else micro_batch.to(self.device)
        self.breakdown.enter(Activity.FORWARD)
        with attempt.forward_context():
            loss = _scalar(self.workload.loss(on_device))
        self.breakdown.enter(Activity.BACKWARD)
        share = loss if weight == 1.0 else loss * weight
        count = len(attempt.window.micro_batches)
        share = share if count == 1 else share / count
        share = share if attempt.loss_scale is None else share * attempt.loss_scale
        counted = loss.detach().float()
        counted = counted if weight == 1.0 else counted * weight
        tell(counted)
        self.ranks.backward(share)
        return counted

    def _run_share(self, attempt: Attempt, micro_batch: MicroBatch, tell: Tell = _untold) -> Tensor:
        """This rank's share of a micro-batch; its loss counts as the share does, and is told before the last pass."""
        share, weight = self.ranks.share(micro_batch)
        passes = self.ranks.passes(micro_batch, attempt.split)
        if passes > 1:
            return self._run_split(attempt, share.parts(passes), weight / share.samples, tell)
        return self._run(attempt, share, weight, tell)

    def _run_split(self, attempt: Attempt, parts: Sequence[MicroBatch], weight: float, tell: Tell) -> Tensor:
        """The same in parts, for want of memory; each part's mean loss counts `weight` for each of its samples."""
        weights = [weight * part.samples for part in parts]
        *before, last = zip(parts, weights, strict=True)
        with self.ranks.accumulating(parts=True):
            losses = [self._run(attempt, *each, _untold) for each in before]
        losses.append(self._run(attempt, *last, lambda loss: tell(torch.stack([*losses, loss]).sum())))
        return torch.stack(losses).sum()


def clear_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Drop all gradients, so that the next backward allocates instead of adding."""
    for parameter in parameters:
        parameter.grad = None


def _scalar(loss: Tensor) -> Tensor:
    """A loss as a workload gave it; raises WorkloadError where it is none, since backward would say so in words of torch."""
    if isinstance(loss, Tensor) and not loss.ndim:
        return loss
    given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise WorkloadError(f"the workload's loss() returned {given}, expected a scalar tensor, the mean loss")
