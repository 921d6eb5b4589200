"""Counts the floating point operations of an attempt, by the dtype that they ran in, in a few windows only.

A dispatch mode sees every operation below autocast, in forward and in backward, so it is told the dtype that a product really
ran in and not the one that was asked for. It calls each operation as it is and changes no value, which torch's own counter
does not promise: that one takes composite operations apart. Counted is what torch has a formula for (matrix products,
convolutions, attention): the rest is below a hundredth of a network's work. What activation checkpointing computes again is
counted again.

A compiled module would have to be run without its compiler to be looked at, and be another computation: it is left out. A
formula that fails is told once, and counting ends; training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ampd.core.flops import Flops
from ampd.core.ledger import Ledger
from ampd.core.messages import Report, Warned
from ampd.engine.ranks import Ranks
from ampd.engine.window import Attempt

_EVERY_WINDOWS = 1000  # as `kept`: often enough to follow a change of shapes, too seldom to be felt

_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention
_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_backward
_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _ATTENTION,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _ATTENTION_BACKWARD,
}
"""Operations that torch has no formula for, each with one that is counted alike."""


class FlopMeter:
    """Counts the first window of each precision and one in a thousand; enters them in the ledger's `flops`."""

    def __init__(
        self, model: nn.Module, ledger: Ledger, ranks: Ranks, emit: Callable[[Report], None]
    ) -> None:
        self._model = model
        self._ledger = ledger
        self._ranks = ranks
        self._emit = emit
        self._is_over = False

    def wants(self, attempt: Attempt) -> bool:
        """Whether this attempt is to be counted."""
        if attempt.precision in self._ledger.flops and attempt.window.number % _EVERY_WINDOWS:
            return False
        self._is_over = self._is_over or _is_compiled(self._model)
        return not self._is_over

    @contextmanager
    def attempt(self, attempt: Attempt) -> Iterator[None]:
        """The scope of an attempt that is counted; one that raises enters nothing."""
        tally = _Tally()
        with tally:
            yield
        if tally.failure is not None:
            self._is_over = True
            self._emit(
                Warned(topic="uncounted-flops", message=f"operations cannot be counted: {tally.failure}")
            )
            return
        samples = sum(self._ranks.share(each)[0].samples for each in attempt.window.micro_batches)
        if samples:
            self._ledger.flops[attempt.precision.value] = Flops(by_dtype=tally.by_dtype, samples=samples)


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.by_dtype: dict[str, int] = {}
        self.failure: str | None = None

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = operation(*args, **kwargs)
        formula = flop_registry.get(_FORMULAS.get(operation._overloadpacket, operation._overloadpacket))
        if formula is not None and self.failure is None:
            self._count(operation, formula, args, kwargs, out)
        return out

    def _count(
        self, operation: Any, formula: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any
    ) -> None:
        try:
            count = int(formula(*args, **kwargs, out_val=out))
        except Exception as error:  # noqa: BLE001  # a sink: whatever a formula raises must not reach training
            self.failure = f"{operation}: {error!r}"
            return
        dtype = next(str(each.dtype) for each in args if isinstance(each, Tensor)).removeprefix("torch.")
        self.by_dtype[dtype] = self.by_dtype.get(dtype, 0) + count


def _is_compiled(model: nn.Module) -> bool:
    return any(
        module._compiled_call_impl is not None or hasattr(module, "_orig_mod") for module in model.modules()
    )
