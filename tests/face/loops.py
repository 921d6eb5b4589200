"""Loops as users write them, by hand and under `training_step`, over the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn, optim

from ampd import AMPConfig, PerformanceConfig, PerformanceOptimizer, create_performance_optimizer
from ampd.optimizer.training import StepResult

Batch = tuple[Tensor, Tensor]
MakeOptimizer = Callable[[nn.Module], optim.Optimizer]
CRITERION: Callable[[Any, Any], Tensor] = nn.MSELoss()
ADAMW: MakeOptimizer = lambda model: optim.AdamW(model.parameters(), lr=0.01)  # noqa: E731  # a default


def model(seed: int = 1) -> nn.Module:
    """A model with what makes steps hard to repeat: BatchNorm and dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1)
    )  # fmt: skip


def batches(count: int, size: int = 8) -> list[Batch]:
    """Fixed random batches."""
    generator = torch.Generator().manual_seed(7)
    inputs = [torch.randn(size, 8, generator=generator) for _ in range(count)]
    return [(x, x.sum(1, keepdim=True)) for x in inputs]


def overflowing(batch: Batch) -> Batch:
    """The same batch times 10000: finite in float32, and beyond 65504 in the first layer in float16."""
    return batch[0] * 1e5, batch[1]


def by_hand(
    subject: nn.Module, optimizer: optim.Optimizer, data: Iterable[Batch], max_norm: float | None = None
) -> list[float]:
    """The loop of every tutorial; returns its losses."""
    losses = []
    for x, y in data:
        optimizer.zero_grad()
        loss = CRITERION(subject(x), y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if max_norm is not None:
            nn.utils.clip_grad_norm_(subject.parameters(), max_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses


def face(amp: AMPConfig | None = None, **settings: Any) -> PerformanceOptimizer:
    """A face in float32, unless told otherwise."""
    return create_performance_optimizer(
        PerformanceConfig(amp_config=amp or AMPConfig(dtype="float32"), **settings)
    )


def float16(**fields: Any) -> AMPConfig:
    """Float16 whose scale is small enough for the first windows of a small model to be finite."""
    return AMPConfig(dtype="float16", init_scale=128.0, **fields)


def train(
    subject: PerformanceOptimizer, trained: nn.Module, optimizer: optim.Optimizer, data: Iterable[Batch]
) -> list[StepResult]:
    """The same loop under the face; returns every step's result."""
    step = subject.training_optimizer.training_step
    return [step(trained, x, y, CRITERION, optimizer) for x, y in data]


def loss_of(result: StepResult) -> float:
    """The loss of a step that was not held."""
    assert result["loss"] is not None
    return result["loss"].item()


def state_of(subject: nn.Module, optimizer: optim.Optimizer) -> dict[str, bytes]:
    """Weights, buffers and optimizer state as bytes."""
    tensors = dict(subject.state_dict())
    for index, entry in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in entry.items()})
    return {name: t.detach().contiguous().view(-1).numpy().tobytes() for name, t in tensors.items()}
