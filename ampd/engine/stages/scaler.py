"""SCALE: scales the loss in float16, unscales the gradients, and judges every attempt in every precision.

The guard is the same for float16, bfloat16 and float32: an attempt is FINITE only if every loss and the norm of all
gradients after unscaling are, and no module buffer has strayed to inf or NaN on the way. Judging reads the device once:
losses, norm, scale and strays in one small tensor, agreed with the other ranks where there are any. A deferred attempt is judged on the device instead: its flag gates
the commit, and the same tensor travels to the host in a letter.

float16 without a scale (`scale_loss = false`) lets small gradients vanish; the share of zeros among them then travels
with the other figures.

A parked scale: attempts at other precisions neither use nor move the scale, so float16 -> bfloat16 -> float16 goes on
where it was. A replay never moves it either: one back-off per bad window, however many rungs. Nor does an attempt that an
error struck on some rank, unless it is deferred, where only the gate is known in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from ampd.core.config import JobConfig
from ampd.core.precision import Precision
from ampd.core.spec import NoOptions
from ampd.engine.letter import Letters
from ampd.engine.pipeline import Proceed
from ampd.engine.ranks import Heard, Ranks
from ampd.engine.rewind import Rewind
from ampd.engine.scale import LossScale
from ampd.engine.stages.context import StageContext
from ampd.engine.window import Attempt, Outcome, Verdict


class Scaler:
    """Owns the loss scale; the one place where gradients are unscaled and their norm is taken."""

    def __init__(
        self, config: JobConfig, parameters: Sequence[nn.Parameter], device: torch.device, rewind: Rewind, ranks: Ranks,
    ) -> None:  # fmt: skip
        self.amp = config.amp
        self._held: tuple[float, float] | None = None  # the bounds that the scale is known to be within
        self.scale = LossScale(config.amp.init_scale, device)
        self._parameters = parameters
        self._letters = Letters(device)
        self._rewind = rewind
        self._ranks = ranks
        self.configure(config)

    def __call__(self, attempt: Attempt, proceed: Proceed) -> Outcome:
        scaled = self.scales(attempt.precision)
        outcome = proceed(replace(attempt, loss_scale=self.scale.value) if scaled else attempt)
        gradients = [gradient for p in self._parameters if (gradient := p.grad) is not None]
        found = self.scale.unscale(gradients) if scaled else None
        norm = total_norm(gradients)
        vanished = self._vanished(attempt.precision, gradients)
        figures = torch.cat(
            (outcome.losses, norm.reshape(1), *vanished, self.scale.value, self._rewind.strays())
        )
        losses = outcome.losses.numel()
        figures = self._ranks.agree(figures, losses, is_struck=outcome.struck is not None)
        norm = figures[losses]  # of all ranks' gradients together
        if attempt.is_deferred:
            judged = self._defer(outcome, norm, figures)
        else:
            judged = judge(outcome, norm, self._ranks.hear(figures.tolist()), scaled=scaled)
        if found is not None and attempt.rung == 0 and not judged.was_struck:
            bad = (
                judged.found if judged.found is not None else found.fill_(judged.verdict is Verdict.NONFINITE)
            )
            self.scale.update(bad, self.amp)
        return judged

    def scales(self, precision: Precision) -> bool:
        """Whether an attempt at `precision` has its loss scaled."""
        return precision is Precision.FLOAT16 and self.amp.scale_loss and self.amp.enable_gradient_scaling

    def _vanished(self, precision: Precision, gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """In float16 without a scale: the share of gradients that are zero ((1,) float32); else nothing."""
        if precision is not Precision.FLOAT16 or self.scales(precision) or not gradients:
            return ()
        zeros = torch.stack([(gradient == 0).sum() for gradient in gradients]).sum()
        count = sum(gradient.numel() for gradient in gradients)
        return ((zeros / max(count, 1)).reshape(1),)

    def configure(self, config: JobConfig) -> None:
        """Take over the factors; a floor or ceiling that moved holds at once."""
        self.amp = config.amp
        bounds = (self.amp.min_scale, self.amp.max_scale)
        if bounds != self._held:
            self.scale.clamp(self.amp)
            self._held = bounds

    def reset(self) -> None:
        """Back to `amp.init_scale`, within its bounds."""
        self.scale.reset()
        self.scale.clamp(self.amp)

    def state_dict(self) -> dict[str, Any]:
        """The loss scale, parked or not."""
        return self.scale.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from a saved scale."""
        self.scale.load_state_dict(state)
        self._held = None

    def _defer(self, outcome: Outcome, norm: Tensor, figures: Tensor) -> Outcome:
        """PENDING, with the flag on the device; x - x is 0 for every finite x and NaN for the others."""
        found = (figures - figures).sum().ne(0).to(torch.float32).reshape(1)
        return replace(
            outcome, verdict=Verdict.PENDING, grad_norm=norm, found=found, letter=self._letters.post(figures)
        )


def judge(outcome: Outcome, grad_norm: Tensor | None, heard: Heard, *, scaled: bool) -> Outcome:
    """The verdict from figures on the host: losses, norm, the share of zeros where it was taken, scale, strays."""
    count = outcome.losses.numel()
    losses, (norm, *zeros, scale, strays) = heard.figures[:count], heard.figures[count:]
    is_finite = math.isfinite(norm) and strays == 0 and all(map(math.isfinite, losses))
    return replace(
        outcome,
        verdict=Verdict.FINITE if is_finite else Verdict.NONFINITE,
        grad_norm=grad_norm,
        loss=losses[0] if len(losses) == 1 else sum(losses) / len(losses),
        norm=norm,
        scale=scale if scaled else None,
        has_strayed=strays != 0,
        zeros=zeros[0] if zeros else None,
        was_struck=heard.was_struck,
    )


def settle(outcome: Outcome, ranks: Ranks) -> Outcome:
    """A pending outcome with the verdict that its letter brought; waits for the letter only."""
    assert outcome.letter is not None, "a pending outcome has a letter"
    scaled = outcome.attempt.loss_scale is not None
    return judge(outcome, outcome.grad_norm, ranks.hear(outcome.letter.read()), scaled=scaled)


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The 2-norm over all gradients, as torch.nn.utils.get_total_norm takes it; a scalar on the device."""
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0)))
    return norm


def build(options: NoOptions, context: StageContext) -> Scaler:
    """The stage of the built-in spec."""
    return Scaler(context.config, context.parameters, context.device, context.rewind, context.ranks)
