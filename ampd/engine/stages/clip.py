"""SHAPE: scales gradients down to `clip.max_norm`, with the norm that SCALE has already taken.

The coefficient is computed as torch.nn.utils.clip_grad_norm_ does (on the device, with its 1e-6), so that a clipped
run equals a hand-written loop bit for bit; the multiplication is left out where the host knows that it would be
by exactly 1. A pending outcome is clipped on the device without that knowledge, and `clipped` then says "if its
norm was above the limit", which the loop works out when the figures arrive.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from msgspec.structs import replace
from torch import nn

from ampd.core.config import JobConfig
from ampd.core.spec import NoOptions
from ampd.engine.pipeline import Proceed
from ampd.engine.stages.context import StageContext
from ampd.engine.window import Attempt, Outcome, Verdict
from ampd.errors import PipelineError


class Clip:
    """Clips the gradients of a finite outcome by their total norm."""

    def __init__(self, config: JobConfig, parameters: Sequence[nn.Parameter]) -> None:
        self.max_norm = config.clip.max_norm
        self._parameters = parameters

    def __call__(self, attempt: Attempt, proceed: Proceed) -> Outcome:
        outcome = proceed(attempt)
        if self.max_norm is None or outcome.verdict is Verdict.NONFINITE:
            return outcome
        if outcome.verdict is Verdict.FINITE and outcome.norm + 1e-6 <= self.max_norm:
            return outcome
        if outcome.grad_norm is None:
            raise PipelineError(
                "an outcome came to `clip` without its norm; the stage in slot SCALE must take it"
            )
        coefficient = torch.clamp(self.max_norm / (outcome.grad_norm + 1e-6), max=1.0)
        torch._foreach_mul_([p.grad for p in self._parameters if p.grad is not None], coefficient)
        return replace(outcome, clipped=True)

    def configure(self, config: JobConfig) -> None:
        """Take over the limit."""
        self.max_norm = config.clip.max_norm


def build(options: NoOptions, context: StageContext) -> Clip:
    """The stage of the built-in spec."""
    return Clip(context.config, context.parameters)
