"""TF32, read and written in this one module, through `fp32_precision` alone.

TF32 keeps float32's range with 10 bits of mantissa; the float32 rung of a fallback must not use it, or "float32 from
the start" would not be what was promised. The setting is global to the process and covers backward too, which is
why it is a scope around a whole attempt and not part of the forward context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def _switches() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn  # its submodules are made at run time
    return (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)


def allow_tf32(allowed: bool) -> None:
    """Let float32 matrix products and convolutions on CUDA run in TF32, or not."""
    for switch in _switches():
        switch.fp32_precision = "tf32" if allowed else "ieee"


@contextmanager
def true_float32() -> Iterator[None]:
    """A scope in which float32 means float32; restores what held before."""
    before = [switch.fp32_precision for switch in _switches()]
    allow_tf32(False)
    try:
        yield
    finally:
        for switch, setting in zip(_switches(), before, strict=True):
            switch.fp32_precision = setting
