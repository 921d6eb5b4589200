"""A small workload with everything that makes replays hard: dropout, BatchNorm, several micro-batches."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ampd.core import messages as m
from ampd.core.change import build
from ampd.core.config import JobConfig
from ampd.core.ledger import WindowRecord
from ampd.engine.assembly import equip
from ampd.engine.device import capability_of
from ampd.engine.trainer import Trainer
from ampd.engine.window import MicroBatch, Window

CPU = torch.device("cpu")


class Toy:
    """Regression on fixed random data; `poison` maps a window number to what is done to its loss."""

    windows_per_epoch = 8

    def __init__(self, seed: int = 1, micro_batches: int = 3, width: int = 16, dropout: float = 0.2) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = nn.Sequential(
            nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1)
        )
        self.micro_batches = micro_batches

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """Windows that are a pure function of epoch and position."""
        for position in range(start, self.windows_per_epoch):
            generator = torch.Generator().manual_seed(1000 * epoch + position)
            yield tuple(self._micro_batch(generator) for _ in range(self.micro_batches))

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """Mean squared error."""
        return nn.functional.mse_loss(self.model(micro_batch.tensors["x"]), micro_batch.tensors["y"])

    def evaluate(self) -> dict[str, float]:
        """The loss on the first window of epoch 99."""
        micro_batch = next(self.windows(99, 0))[0]
        return {"loss": float(self.loss(micro_batch))}

    @staticmethod
    def _micro_batch(generator: torch.Generator) -> MicroBatch:
        x = torch.randn(4, 8, generator=generator)
        return MicroBatch(tensors={"x": x, "y": x.sum(1, keepdim=True)}, samples=4)


def config(**sections: dict[str, Any]) -> JobConfig:
    """A valid configuration with some sections changed."""
    base: dict[str, Any] = {
        "job": {"name": "toy", "directory": "toy", "windows": 100},
        "workload": {"name": "toy"},
        "optim": {"lr": 0.01},
        "inject": {"allowed": True},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section}
    return build(base)


def trainer(workload: Any = None, **sections: dict[str, Any]) -> Trainer:
    """A trainer of the toy (or of `workload`) on the CPU."""
    chosen = config(**sections)
    parts = equip(chosen, workload or Toy(), CPU, lambda _report: None)
    return Trainer(chosen, parts, capability_of(CPU), chosen.job.windows or 100)


def window(number: int, workload: Any = None, epoch: int = 0) -> Window:
    """The toy's window at position `number` of an epoch."""
    return Window(
        number=number, epoch=epoch, micro_batches=next((workload or Toy()).windows(epoch, number % 8))
    )


def run(subject: Trainer, numbers: range, faults: Mapping[int, m.Fault] | None = None) -> list[WindowRecord]:
    """Train some windows, with faults injected into those that are named; returns when all are settled."""
    records: list[WindowRecord] = []
    for number in numbers:
        if faults and number in faults:
            subject.parts.injector.arm(faults[number], 1)
        records += subject.step(window(number, subject.parts.workload))
        assert subject.ledger.job.is_balanced
    return records + subject.drain()


def state_bytes(subject: Trainer) -> dict[str, bytes]:
    """Everything that training changes, as bytes: weights, buffers, optimizer state."""
    state = subject.state_dict()
    tensors = {**state["model"], **{f"buffer.{k}": v for k, v in state["buffers"].items()}}
    for index, entry in state["optimizer"]["state"].items():
        tensors.update({f"optimizer.{index}.{k}": v for k, v in entry.items()})
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def orders() -> queue.SimpleQueue[m.Order]:
    """An empty queue of orders."""
    return queue.SimpleQueue()
