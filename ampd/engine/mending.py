"""Errors that a window can be mended from, as against numbers that are not finite: out of memory, and `constant`.

Out of memory: every micro-batch is divided in two, in four and so on, each part weighted by its samples, and the
window is run again; the division is remembered, since the next window is no smaller. BatchNorm then sees smaller
batches, so its statistics differ from an undivided run. `constant`: see `overrides`; it is never charged to the
fallback budget, because it is no overflow of numbers.

In a group an error is one rank's and the remedy is everybody's: each rank says what it found, all of them know what
all have found, and do the same. A rank whose memory runs out while gradients are being summed has to leave; it names what
the group is to begin with when it starts again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from msgspec.structs import replace
from torch import nn

from ampd.core.ledger import Cause
from ampd.core.messages import Report, Split, Widened
from ampd.core.precision import Precision
from ampd.engine.memory import Shortages
from ampd.engine.overrides import Override, Overrides
from ampd.engine.ranks import Alone, Ranks
from ampd.engine.window import Attempt
from ampd.errors import WorkloadError


@dataclass(frozen=True, slots=True)
class Mended:
    """The attempt to make instead, and the cause where it counts as a replay."""

    attempt: Attempt
    cause: Cause | None = None


class Finding(msgspec.Struct, frozen=True):
    """What struck one rank: `shortage` of memory in torch's words, or the module that a constant is to blame for."""

    shortage: str = ""
    blamed: Override | None = None


class MustLeave(RuntimeError):
    """A rank cannot go on with its group, which is to begin again with micro-batches in `parts`."""

    def __init__(self, message: str, parts: int) -> None:
        super().__init__(message)
        self.parts = parts


_FINDINGS = msgspec.msgpack.Decoder(Finding)


class Mending:
    """What was learned from errors; for the loop's thread."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        emit: Callable[[Report], None],
        ranks: Ranks | None = None,
        shortages: Shortages | None = None,
    ) -> None:
        self.split = 1
        self._shortages = shortages or Shortages()
        self._ranks = ranks or Alone()
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
        """The attempt to make instead; raises `error` again where nothing helps, or MustLeave where a group has to."""
        self._count(error)
        if self._ranks.world > 1 and is_out_of_memory(error):
            said = f"rank {self._ranks.rank}: {_said(error)}"
            raise MustLeave(said, self._halved(error, attempt)) from error
        finding = self._finding(error)
        if finding is None:
            raise error
        if finding.blamed is not None and self._ranks.is_sharded:
            raise _beyond_mending(finding.blamed)
        if self._ranks.world > 1:
            raise error
        return self._remedy([finding], error, attempt)

    def mend_together(self, error: RuntimeError | None, attempt: Attempt) -> Mended:
        """The same on all ranks, of which some were struck and this one by `error`; two collectives.

        A deferred attempt may have met what was learned since it was made.
        """
        own = self._finding(error) if error is not None else None
        self._count(error)
        said = self._ranks.gather(msgspec.msgpack.encode(own or Finding()))
        return self._remedy([_FINDINGS.decode(each) for each in said], error, attempt)

    def state_dict(self) -> dict[str, Any]:
        """The split, and source lines by module."""
        return {"split": self.split, "overrides": self._overrides.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Learn again what was learned."""
        self.split = state["split"]
        self._overrides.load_state_dict(state["overrides"])

    def _count(self, error: RuntimeError | None) -> None:
        self._shortages.count += error is not None and is_out_of_memory(error)

    def _finding(self, error: RuntimeError) -> Finding | None:
        if is_out_of_memory(error):
            return Finding(shortage=_said(error))
        blamed = self._overrides.blamed(error)
        return Finding(blamed=blamed) if blamed is not None else None

    def _remedy(self, found: Sequence[Finding], error: RuntimeError | None, attempt: Attempt) -> Mended:
        """What helps against all of it."""
        short = [(rank, finding.shortage) for rank, finding in enumerate(found) if finding.shortage]
        blamed = {finding.blamed.module: finding.blamed for finding in found if finding.blamed is not None}
        known = blamed.keys() & self._overrides.learned.keys()
        if known and not attempt.is_deferred:
            raise error or RuntimeError(f"{', '.join(blamed)}: float32 did not help on another rank")
        if short:
            rank, said = short[0]
            attempt = self._divide(said if self._ranks.world == 1 else f"rank {rank}: {said}", error, attempt)
        attempt = replace(attempt, is_deferred=False)
        for override in (blamed[module] for module in blamed if module not in known):
            self._overrides.add(override)
            self._emit(
                Widened(window=attempt.window.number, module=override.module, location=override.location)
            )
        return Mended(self.prepared(attempt), Cause.CONSTANT) if blamed else Mended(attempt)

    def _divide(self, said: str, error: RuntimeError | None, attempt: Attempt) -> Attempt:
        self.split = self._halved(error or torch.OutOfMemoryError(said), attempt)
        self._emit(Split(window=attempt.window.number, parts=self.split, message=said))
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return replace(attempt, split=self.split)

    def _halved(self, error: RuntimeError, attempt: Attempt) -> int:
        """In how many parts instead; raises `error` where a part is one sample already."""
        largest = attempt.window.largest_share(self._ranks.world)
        if attempt.split >= largest:
            raise error
        return min(2 * attempt.split, largest)


def _beyond_mending(override: Override) -> WorkloadError:
    """What a rank of a sharded model says, whose gathered weights a forward that was cut short leaves behind."""
    return WorkloadError(
        f"a constant in {override.module} ({override.location}) does not fit float16; under fsdp2 a pass that was cut short "
        'cannot be made again with the module in float32: use amp.dtype = "bfloat16", a smaller constant, or strategy = "ddp"'
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """torch's own error on CUDA; on the CPU only its text tells."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _said(error: RuntimeError) -> str:
    return str(error).split("\n")[0][:200]
