"""CAST: the context in which forward and loss run. It enters none itself; `execute` does, for each micro-batch.

A float32 attempt disables autocast explicitly: a user's own loop may call us under one.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from msgspec.structs import replace

from ampd.core.config import JobConfig
from ampd.core.precision import Precision
from ampd.core.spec import NoOptions
from ampd.engine.float32 import allow_tf32
from ampd.engine.flops import FlopMeter
from ampd.engine.kept import KeptMeter
from ampd.engine.pipeline import Proceed
from ampd.engine.stages.context import StageContext
from ampd.engine.window import Attempt, ForwardContext, Outcome

TORCH_DTYPE = {
    Precision.FLOAT16: torch.float16,
    Precision.BFLOAT16: torch.bfloat16,
    Precision.FLOAT32: torch.float32,
}


class Autocast:
    """Puts the forward context of the attempt's precision on the attempt; in a few windows it measures what that runs."""

    def __init__(self, device_type: str, kept: KeptMeter, flops: FlopMeter) -> None:
        self._contexts = {precision: forward_context(precision, device_type) for precision in Precision}
        self._kept, self._flops = kept, flops
        self._config: JobConfig | None = None
        self._is_measuring = True

    def __call__(self, attempt: Attempt, proceed: Proceed) -> Outcome:
        context = self._contexts[attempt.precision]
        if self._is_measuring and (self._kept.wants(attempt) or self._flops.wants(attempt)):
            return self._measured(attempt, context, proceed)
        return proceed(replace(attempt, forward_context=context))

    def _measured(self, attempt: Attempt, context: ForwardContext, proceed: Proceed) -> Outcome:
        with ExitStack() as opened:
            if self._kept.wants(attempt):
                context = opened.enter_context(self._kept.attempt(attempt.precision)).forward(context)
            if self._flops.wants(attempt):
                opened.enter_context(self._flops.attempt(attempt))
            return proceed(replace(attempt, forward_context=context))

    def configure(self, config: JobConfig) -> None:
        """Take over whether to measure, TF32 and cuDNN's benchmark mode, both settings of the whole process."""
        last, self._config = self._config, config
        if last is not None and last.amp is config.amp and last.device is config.device:
            return
        self._is_measuring = config.amp.track_amp_stats
        allow_tf32(config.amp.enable_tf32)
        torch.backends.cudnn.benchmark = config.amp.enable_cudnn_benchmark and not config.device.deterministic


def forward_context(precision: Precision, device_type: str) -> ForwardContext:
    """The scope that forward and loss run in at `precision`; one object, to be entered again but not within itself."""
    if precision is Precision.FLOAT32:
        scope = torch.autocast(device_type, enabled=False)
    else:
        scope = torch.autocast(device_type, dtype=TORCH_DTYPE[precision])
    return lambda: scope


def build(options: NoOptions, context: StageContext) -> Autocast:
    """The stage of the built-in spec."""
    kept = KeptMeter(context.parameters, context.device, context.ledger, context.ranks)
    flops = FlopMeter(context.model, context.ledger, context.ranks, context.emit)
    stage = Autocast(context.device.type, kept, flops)
    stage.configure(context.config)
    return stage
