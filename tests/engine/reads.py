"""Counts the ways in which Python reads what a tensor holds, each of which makes the host wait for a device.

    with HostReads() as reads:
        trainer.step(window)
    assert reads.ways == ["tolist"]

Two nets, because neither catches all: a dispatch mode sees the operations that hand a value or a data-dependent
shape to the host (`item`, `bool`, `nonzero`, a boolean index, a copy to the CPU), and patched methods those that go
around the dispatcher (`tolist`, `numpy`, `repr`). On a machine without a device they count just the same, so that the
promise can be checked on a CPU. A read inside a read is one read. Only the thread that counts is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_METHODS = ("tolist", "numpy", "cpu", "__array__", "__dlpack__", "__repr__", "__reduce_ex__")
"""What never comes to the dispatcher, or comes there looking harmless."""

_OPERATIONS = (
    "_local_scalar_dense", "equal", "allclose", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "_linalg_check_errors",
)  # fmt: skip
"""What gives the host a value, or an output whose shape depends on values."""


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """A scope; `ways` are the reads in it, in order, each by the name of what read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.ways: list[str] = []
        self._depth = 0
        self._patches = ExitStack()

    def __enter__(self) -> Self:
        for name in _METHODS:
            self._patches.enter_context(self._patched(name))
        super().__enter__()  # type: ignore[no-untyped-call]  # torch's own
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]  # torch's own
        self._patches.close()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if _reads(operation, args, kwargs or {}):
            self._note(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))

    def _note(self, way: str) -> None:
        if self._depth == 0:
            self.ways.append(way)

    @contextmanager
    def _patched(self, name: str) -> Iterator[None]:
        """A scope in which a method of tensors is counted."""
        own, original = name in Tensor.__dict__, getattr(Tensor, name)
        setattr(Tensor, name, self._counted(name, original))
        try:
            yield
        finally:
            if own:
                setattr(Tensor, name, original)
            else:
                delattr(Tensor, name)

    def _counted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._note(name)
            self._depth += 1
            try:
                return original(tensor, *args, **kwargs)
            finally:
                self._depth -= 1

        return counted


def _reads(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    name: str = operation.overloadpacket.__name__
    match name:
        case "index" | "index_put_" | "index_put":
            return any(_is_mask(index) for index in args[1])
        case "repeat_interleave":
            return isinstance(args[0], Tensor) and kwargs.get("output_size") is None
        case "_to_copy":
            return _waits(args[0].device, kwargs.get("device"), bool(kwargs.get("non_blocking")))
        case "copy_":
            return _waits(args[1].device, args[0].device, bool((*args, False)[2]))
    return name in _OPERATIONS


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _waits(source: torch.device, target: torch.device | None, non_blocking: bool) -> bool:
    """A copy to the host waits for the device, unless it was asked not to."""
    return target is not None and target.type == "cpu" and source.type != "cpu" and not non_blocking
