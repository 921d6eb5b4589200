"""The loops that ampd is compared with, each as its own documentation writes it.

All train the same model from the same weights on the same batches, with the optimizer that ampd builds (fused AdamW in
two groups), clip to the same norm and read the loss in every step, as loops that log do. None of them guards anything
but float16's gradients, follows a schedule, keeps a ledger or can be asked a question; what ampd does on top of it is
what its ratio pays for.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import nn

from ampd.core.config import JobConfig
from ampd.engine.optim import build_optimizer
from ampd.engine.window import MicroBatch
from ampd.engine.workload import Workload

TORCH_DTYPE = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Contestant(Protocol):
    """A loop that trains so many steps when it is its turn."""

    def run(self, steps: int) -> None:
        """Train."""


Entry = Callable[[Workload, JobConfig], Contestant]


class ByHand:
    """torch alone: autocast, backward, clip_grad_norm_, step; with a GradScaler in float16."""

    def __init__(self, workload: Workload, config: JobConfig) -> None:
        self.losses: list[float] = []
        self._workload = workload
        self._batches = micro_batches(workload)
        self._optimizer = build_optimizer(config.optim, workload.model.parameters())
        self._dtype = TORCH_DTYPE[config.amp.dtype]
        self._scaler = torch.amp.GradScaler("cpu", enabled=config.amp.dtype == "float16")
        self._max_norm = max_norm_of(config)
        workload.model.train()

    def run(self, steps: int) -> None:
        """A GradScaler that is not enabled passes everything through, for the price of a call."""
        parameters = list(self._workload.model.parameters())
        for _ in range(steps):
            self._optimizer.zero_grad()
            with torch.autocast("cpu", dtype=self._dtype):
                loss = self._workload.loss(next(self._batches))
            if self._dtype is torch.bfloat16:
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own
                nn.utils.clip_grad_norm_(parameters, self._max_norm)
                self._optimizer.step()
            else:
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own
                self._scaler.unscale_(self._optimizer)
                nn.utils.clip_grad_norm_(parameters, self._max_norm)
                self._scaler.step(self._optimizer)
                self._scaler.update()
            self.losses.append(loss.item())


class Fabric:
    """Lightning Fabric, which on a CPU takes bfloat16 where it is asked for float16."""

    def __init__(self, workload: Workload, config: JobConfig) -> None:
        fabric: Any = importlib.import_module("lightning_fabric")
        self.losses: list[float] = []
        self._fabric = fabric.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
        self._workload = workload
        self._batches = micro_batches(workload)
        optimizer = build_optimizer(config.optim, workload.model.parameters())
        workload.model, self._optimizer = self._fabric.setup(workload.model, optimizer)
        self._max_norm = max_norm_of(config)
        workload.model.train()

    def run(self, steps: int) -> None:
        """Fabric enters autocast in the wrapped model's forward."""
        for _ in range(steps):
            self._optimizer.zero_grad()
            loss = self._workload.loss(next(self._batches))
            self._fabric.backward(loss)
            self._fabric.clip_gradients(self._workload.model, self._optimizer, max_norm=self._max_norm)
            self._optimizer.step()
            self.losses.append(loss.item())


class Accelerate:
    """Hugging Face Accelerate, which refuses float16 on a CPU."""

    def __init__(self, workload: Workload, config: JobConfig) -> None:
        accelerate: Any = importlib.import_module("accelerate")
        self.losses: list[float] = []
        self._accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
        self._workload = workload
        self._batches = micro_batches(workload)
        optimizer = build_optimizer(config.optim, workload.model.parameters())
        workload.model, self._optimizer = self._accelerator.prepare(workload.model, optimizer)
        self._max_norm = max_norm_of(config)
        workload.model.train()

    def run(self, steps: int) -> None:
        """As in its quick tour."""
        for _ in range(steps):
            self._optimizer.zero_grad()
            loss = self._workload.loss(next(self._batches))
            self._accelerator.backward(loss)
            self._accelerator.clip_grad_norm_(self._workload.model.parameters(), self._max_norm)
            self._optimizer.step()
            self.losses.append(loss.item())


def contestants(dtype: str) -> dict[str, Entry]:
    """Who can run here at `dtype`, by name; the hand-written loop twice, to see the noise."""
    found: dict[str, Callable[[Workload, JobConfig], Contestant]] = {
        "by hand": ByHand,
        "by hand, again": ByHand,
    }
    if dtype == "bfloat16":  # neither peer has float16 on a CPU
        if importlib.util.find_spec("lightning_fabric"):
            found["Lightning Fabric"] = Fabric
        if importlib.util.find_spec("accelerate"):
            found["Accelerate"] = Accelerate
    return found


def micro_batches(workload: Workload) -> Iterator[MicroBatch]:
    """The workload's data, one micro-batch a step."""
    return (window[0] for window in workload.windows(0, 0))


def max_norm_of(config: JobConfig) -> float:
    """The limit that everybody clips to."""
    assert config.clip.max_norm is not None, "the benchmark's job clips"
    return config.clip.max_norm
