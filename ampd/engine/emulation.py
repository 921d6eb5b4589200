"""The price of a precision that the device only emulates: said once for each, when a run first comes to it.

It is measured, on a matrix product, because nobody believes an adjective: float16 on a processor without its own
instructions takes tens of times as long, and an operator who changes a running job must hear that as well as one who
starts it. Refusing is what `amp.require_native` is for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ampd.core import messages as m
from ampd.core.precision import Choice, Precision
from ampd.engine.stages.autocast import TORCH_DTYPE

_SIDE = 256  # a product of such matrices is large enough to be work, and small enough to be quick


class Emulation:
    """What was said about one device, by one run."""

    def __init__(self, device: torch.device, report: Callable[[m.Report], None]) -> None:
        self._device = device
        self._report = report
        self._told: set[Precision] = set()

    def warn(self, choice: Choice) -> None:
        """Say what the choice costs, where it is emulated and was not told of; waits for the device then."""
        if choice.is_native or choice.precision in self._told:
            return
        self._told.add(choice.precision)
        slower = self._product_seconds(TORCH_DTYPE[choice.precision]) / self._product_seconds(torch.float32)
        message = f"{choice.reason}: a matrix product takes {slower:.1f} times as long as in float32 here"
        self._report(m.Warned(topic="emulated-dtype", message=message))

    def _product_seconds(self, dtype: torch.dtype) -> float:
        """The best of three."""
        left = torch.ones(_SIDE, _SIDE, dtype=dtype, device=self._device)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            float((left @ left).sum())  # waits for the device
            times.append(time.perf_counter() - start)
        return min(times)
