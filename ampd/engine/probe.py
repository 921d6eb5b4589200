"""One window of the job's own model at a precision, to see whether it is finite; everything is put back afterwards.

A stock model or a list of device names would not tell: what overflows is this model on this data. In float16 the loss
alone is judged, since gradients that overflow at the first scale are what the scaler is there for.
"""

from __future__ import annotations

import torch

from ampd.core.precision import Precision
from ampd.engine.assembly import Parts
from ampd.engine.execute import clear_gradients
from ampd.engine.overrides import is_constant_overflow
from ampd.engine.stages.autocast import forward_context
from ampd.engine.stages.scaler import total_norm
from ampd.engine.window import Attempt, Window


def is_finite_at(precision: Precision, window: Window, parts: Parts) -> bool:
    """Whether the window's loss (and in bfloat16 its gradients) are finite; waits for the device.

    A constant that float16 cannot hold is no answer to that question: it counts as finite and is mended in training.
    """
    context = forward_context(precision, parts.device.type)
    mark = parts.rewind.mark()
    try:
        outcome = parts.execute(Attempt(window=window, precision=precision, forward_context=context))
        if outcome.struck is not None and not is_constant_overflow(outcome.struck):
            raise outcome.struck
        figures = outcome.losses
        if precision is Precision.BFLOAT16:
            norm = total_norm([p.grad for p in parts.parameters if p.grad is not None])
            figures = torch.cat((figures, norm.reshape(1)))
        return parts.ranks.all(bool(torch.isfinite(figures).all()))
    except RuntimeError as error:
        if parts.ranks.is_sharded or not is_constant_overflow(error):
            raise
        return True
    finally:
        parts.rewind.restore(mark)
        clear_gradients(parts.parameters)
