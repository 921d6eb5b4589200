"""Figures on their way from the device to the host, read one window later without a sync.

A letter is a slot of memory that the host sees directly: pinned on CUDA, where the copy runs behind the step and an
event tells when it has arrived. Reading it waits for that event only, never for the step that is running now, and it
reads host memory through a NumPy view made once, so no tensor is read at all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Letter:
    """One slot; `post` it, `read` it, post it again."""

    def __init__(self, size: int, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # torch's
        self._memory = torch.empty(size, dtype=torch.float32, pin_memory=device.type == "cuda")
        self._view: Any = self._memory.numpy()

    def post(self, figures: Tensor) -> None:
        """Send a (size,) float32 tensor on its way; does not wait."""
        self._memory.copy_(figures, non_blocking=True)
        if self._event is not None:
            self._event.record()

    def read(self) -> list[float]:
        """The figures; waits for their copy, which was queued a window ago."""
        if self._event is not None:
            self._event.synchronize()
        figures: list[float] = self._view.tolist()
        return figures


class Letters:
    """A few slots in turn: with a lag of one, two are on their way at most."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._slots: list[Letter] = []
        self._size = 0
        self._turn = 0

    def post(self, figures: Tensor) -> Letter:
        """Send figures in the next slot; all letters of a job have the same size, save where its windows change."""
        if figures.numel() != self._size:
            self._size = figures.numel()
            self._slots = [Letter(self._size, self._device) for _ in range(3)]
        self._turn = (self._turn + 1) % len(self._slots)
        letter = self._slots[self._turn]
        letter.post(figures)
        return letter
