"""How much memory mixed precision saves, from what was measured; a figure always says what it was compared with.

A micro-batch keeps tensors for its backward pass. They are counted by dtype in sampled windows, for each precision that
ran. Where a float32 window was measured too (every fallback is one), the saving is the difference of the two.
Where none was, it is what the same tensors would be in float32, less the copies of weights that autocast makes
and float32 would not: an estimate, and called so.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ampd.core.precision import Precision

Basis = Literal["float32 window", "estimate by dtype"]
_FLOAT32_BYTES = 4
_LOW_BYTES = 2


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a micro-batch kept for backward (the largest of a window), by dtype; `weight_copies` of them are low-precision copies of weights.

    `peak` is the highest memory that the device held above what it held before, where the device can tell.
    """

    by_dtype: dict[str, int]
    weight_copies: int = 0
    peak: int | None = None

    @property
    def total(self) -> int:
        """Bytes of all dtypes."""
        return sum(self.by_dtype.values())


class MemorySaved(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a micro-batch at the present precision keeps less than in float32; negative where it keeps more."""

    bytes: int
    basis: Basis


def saved(measured: dict[str, Kept], precision: Precision) -> MemorySaved | None:
    """What `precision` saves a micro-batch, or None where it was not measured yet or is float32."""
    kept = measured.get(precision)
    if kept is None or not precision.is_low:
        return None
    baseline = measured.get(Precision.FLOAT32)
    if baseline is not None:
        return MemorySaved(bytes=baseline.total - kept.total, basis="float32 window")
    low = kept.by_dtype.get(Precision.FLOAT16, 0) + kept.by_dtype.get(Precision.BFLOAT16, 0)
    activations = low - kept.weight_copies
    gained = activations * (_FLOAT32_BYTES - _LOW_BYTES) // _LOW_BYTES
    return MemorySaved(bytes=gained - kept.weight_copies, basis="estimate by dtype")
