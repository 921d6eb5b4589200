"""Measures what a micro-batch keeps for its backward pass, by saved-tensor hooks, in a few windows only.

A hook sees each tensor that autograd saves. Storages are counted once a forward pass, parameters not at all (they are there anyway);
a low-precision tensor of a parameter's shape is the copy that autocast made of it. Values are not touched, so a
measured window is bit-identical to any other. No host sync.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import torch
from torch import Tensor, nn

from ampd.core.kept import Kept
from ampd.core.ledger import Ledger
from ampd.core.precision import Precision
from ampd.engine.ranks import Ranks
from ampd.engine.window import Attempt, ForwardContext

_EVERY_WINDOWS = 1000  # often enough to follow a change of shapes, too seldom to be felt
_LOW = (torch.float16, torch.bfloat16)


class KeptMeter:
    """Measures the first window of each precision and one in a thousand; enters them in the ledger's `kept`."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], device: torch.device, ledger: Ledger, ranks: Ranks
    ) -> None:
        self._parameters = parameters
        self._ranks = ranks
        self._device = device
        self._ledger = ledger

    def wants(self, attempt: Attempt) -> bool:
        """Whether this attempt is worth measuring."""
        return attempt.precision not in self._ledger.kept or attempt.window.number % _EVERY_WINDOWS == 0

    @contextmanager
    def attempt(self, precision: Precision) -> Iterator[_Tally]:
        """The scope of an attempt that is measured; its forward passes run in `tally.forward`."""
        tally = _Tally(self._parameters, self._ranks)
        before = self._begin_peak()
        yield tally
        if tally.forwards:
            most = max(tally.forwards, key=lambda kept: kept.total)
            self._ledger.kept[precision.value] = msgspec.structs.replace(most, peak=self._end_peak(before))

    def _begin_peak(self) -> int:
        if self._device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self._device)
        return torch.cuda.memory_allocated(self._device)

    def _end_peak(self, before: int) -> int | None:
        return torch.cuda.max_memory_allocated(self._device) - before if self._device.type == "cuda" else None


class _Tally:
    def __init__(self, parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
        self._parameters = parameters
        self._ranks = ranks
        self._look()
        self._seen: set[int] = set()
        self.forwards: list[Kept] = []

    def forward(self, context: ForwardContext) -> ForwardContext:
        """The same forward context, with every tensor that it saves counted."""

        @contextmanager
        def counted() -> Iterator[None]:
            self._seen.clear()  # the last micro-batch is gone, and its addresses may be used again
            self.forwards.append(Kept(by_dtype={}))
            with context(), torch.autograd.graph.saved_tensors_hooks(self._count, lambda tensor: tensor):
                yield

        return counted

    def _look(self) -> None:
        """Where weights lie, and their shapes."""
        weights = self._ranks.weights(self._parameters)
        self._own = {weight.untyped_storage().data_ptr() for weight in weights}
        self._shapes = {weight.shape for weight in weights if weight.ndim >= 2}

    def _count(self, tensor: Tensor) -> Tensor:
        if self._ranks.is_sharded:
            self._look()  # those of a block are there while it runs, and let go before its backward pass
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._own and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            is_copy = tensor.dtype in _LOW and (
                tensor.shape in self._shapes or tensor.shape[::-1] in self._shapes
            )
            self.forwards[-1] = _with(self.forwards[-1], tensor.dtype, storage.nbytes(), is_copy=is_copy)
        return tensor


def _with(kept: Kept, dtype: torch.dtype, size: int, *, is_copy: bool) -> Kept:
    name = str(dtype).removeprefix("torch.")
    by_dtype = {**kept.by_dtype, name: kept.by_dtype.get(name, 0) + size}
    return msgspec.structs.replace(kept, by_dtype=by_dtype, weight_copies=kept.weight_copies + size * is_copy)
