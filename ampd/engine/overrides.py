"""Modules that run in float32 whatever the attempt's precision: the remedy for a constant that float16 cannot hold.

`masked_fill(-1e9)` in float16 raises "value cannot be converted to type at::Half without overflow". It recurs in
every window and has nothing to do with numeric overflow (which raises nothing), so it must not burn fallbacks: the
traceback names the innermost module of the model and the line of source, and that module alone is widened.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

_BELOW = ("torch", "ampd.engine")
"""What a line of the model calls into, and no operator could change: operations, and those who watch them."""
WHOLE_LOSS = "loss()"
"""The path of an override where no module of the model is to blame: the workload's own loss function."""


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """One module in float32: its path in the model, and the source line whose constant did not fit."""

    module: str
    location: str


class Overrides:
    """The overrides of one model; for the loop's thread."""

    def __init__(self, model: nn.Module, device_type: str) -> None:
        self._model = model
        self._device_type = device_type
        self.learned: dict[str, str] = {}

    @property
    def covers_loss(self) -> bool:
        """The loss function itself cannot run in float16."""
        return WHOLE_LOSS in self.learned

    def blamed(self, error: RuntimeError) -> Override | None:
        """The module to widen, where `error` is of a constant that does not fit; it may be one that was widened before."""
        return self._blame(error.__traceback__) if is_constant_overflow(error) else None

    def add(self, override: Override) -> None:
        """Run the module in float32 from now on."""
        self.learned[override.module] = override.location
        if override.module != WHOLE_LOSS:
            module = self._model.get_submodule(override.module)
            module.forward = widened(module.forward, self._device_type)

    def state_dict(self) -> dict[str, str]:
        """Location by module path."""
        return dict(self.learned)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Widen what was widened."""
        for module, location in state.items():
            self.add(Override(module=module, location=location))

    def _blame(self, trace: TracebackType | None) -> Override:
        paths = {id(module): path for path, module in self._model.named_modules()}
        module, location = WHOLE_LOSS, "unknown line"
        for frame, line in traceback.walk_tb(trace):
            name = frame.f_code.co_filename
            if id(frame.f_locals.get("self")) in paths:
                module = paths[id(frame.f_locals["self"])]
            if not frame.f_globals.get("__name__", "").startswith(_BELOW):
                location = f"{name}:{line}"
        return Override(module=module, location=location)


def is_constant_overflow(error: RuntimeError) -> bool:
    """Whether a Python constant did not fit a low-precision tensor; torch has no type of its own for it."""
    return "without overflow" in str(error)


def widened(forward: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    """A forward that runs in float32: autocast off, low-precision inputs converted."""

    def in_float32(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, enabled=False):
            return forward(*_wide(args), **_wide(kwargs))

    return in_float32


def _wide(value: Any) -> Any:
    match value:
        case Tensor() if value.dtype in (torch.float16, torch.bfloat16):
            return value.float()
        case tuple() | list():
            return type(value)(_wide(item) for item in value)
        case dict():
            return {key: _wide(item) for key, item in value.items()}
    return value
