"""Errors that a window can be mended from, as against numbers that are not finite: out of memory, and `constant`.

Out of memory: every micro-batch is divided in two, in four and so on, each part weighted by its samples, and the
window is run again; the division is remembered, since the next window is no smaller. BatchNorm then sees smaller
batches, so its statistics differ from an undivided run. `constant`: see `overrides`; it is never charged to the
fallback budget, because it is no overflow of numbers.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from msgspec.structs import replace
from torch import nn

from ampd.core.ledger import Cause
from ampd.core.messages import Report, Split, Widened
from ampd.core.precision import Precision
from ampd.engine.overrides import Override, Overrides
from ampd.engine.window import Attempt
from ampd.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class Mended:
    """The attempt to make instead, and the cause where it counts as a replay."""

    attempt: Attempt
    cause: Cause | None = None


class Mending:
    """What was learned from errors; for the loop's thread."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        emit: Callable[[Report], None],
        *,
        has_peers: bool = False,
        is_sharded: bool = False,
    ) -> None:
        self.split = 1
        self._has_peers = has_peers
        self._is_sharded = is_sharded
        self._overrides = Overrides(model, device.type)
        self._device = device
        self._emit = emit

    def prepared(self, attempt: Attempt) -> Attempt:
        """A first attempt with what was learned: its split, and float32 where the loss function needs it."""
        if self.split != attempt.split:
            attempt = replace(attempt, split=self.split)
        if self._overrides.covers_loss and attempt.precision is Precision.FLOAT16:
            return replace(attempt, precision=Precision.FLOAT32)
        return attempt

    def mend(self, error: RuntimeError, attempt: Attempt) -> Mended:
        """The attempt to make instead; raises `error` again where nothing helps."""
        if is_out_of_memory(error):
            if self._has_peers:
                raise error  # others may have summed some of its gradients already: a second pass would not match
            return Mended(self._divide(error, attempt))
        override = self._overrides.learn(error)
        if override is None:
            raise error
        if self._is_sharded:
            raise _beyond_mending(override)
        self._emit(Widened(window=attempt.window.number, module=override.module, location=override.location))
        return Mended(self.prepared(attempt), Cause.CONSTANT)

    def state_dict(self) -> dict[str, Any]:
        """The split, and source lines by module."""
        return {"split": self.split, "overrides": self._overrides.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Learn again what was learned."""
        self.split = state["split"]
        self._overrides.load_state_dict(state["overrides"])

    def _divide(self, error: RuntimeError, attempt: Attempt) -> Attempt:
        largest = max(m.samples for m in attempt.window.micro_batches)
        if attempt.split >= largest:
            raise error
        self.split = min(2 * attempt.split, largest)
        message = str(error).split("\n")[0][:200]
        self._emit(Split(window=attempt.window.number, parts=self.split, message=message))
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return replace(attempt, split=self.split)


def _beyond_mending(override: Override) -> WorkloadError:
    """What a rank of a sharded model says, whose gathered weights a forward that was cut short leaves behind."""
    return WorkloadError(
        f"a constant in {override.module} ({override.location}) does not fit float16; under fsdp2 a pass that was cut short "
        'cannot be made again with the module in float32: use amp.dtype = "bfloat16", a smaller constant, or strategy = "ddp"'
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """torch's own error on CUDA; on the CPU only its text tells."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
