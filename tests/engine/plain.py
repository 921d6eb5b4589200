"""A training loop as one writes it by hand with torch alone: what a run without faults is measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn, optim

from ampd.engine.window import Window


def train(
    workload: Any, optimizer: optim.Optimizer, windows: Sequence[Window], **settings: Any
) -> list[float]:
    """Float32, gradient accumulation, clipping, warm-up and cosine; returns the mean loss of each window."""
    workload.model.train()
    losses = []
    for number, window in enumerate(windows):
        for group in optimizer.param_groups:
            group["lr"] = rate(number, **settings)
        optimizer.zero_grad()
        total = 0.0
        for micro_batch in window.micro_batches:
            loss = workload.loss(micro_batch)
            (loss / len(window.micro_batches)).backward()
            total += loss.item()
        if settings.get("max_norm") is not None:
            nn.utils.clip_grad_norm_(workload.model.parameters(), settings["max_norm"])
        optimizer.step()
        losses.append(total / len(window.micro_batches))
    return losses


def rate(number: int, *, lr: float, warmup: int, total: int, floor: float, **_others: Any) -> float:
    """Linear warm-up, then a half cosine down to `floor` times the peak."""
    if number < warmup:
        return lr * (number + 1) / warmup
    done = (number - warmup) / (total - warmup)
    return floor * lr + (lr - floor * lr) * 0.5 * (1 + math.cos(math.pi * done))


def optimizer_of(model: nn.Module, name: str, *, fused: bool, decay: float) -> optim.Optimizer:
    """AdamW or SGD with decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    if name == "sgd":
        return optim.SGD(groups, momentum=0.9, fused=fused)
    return optim.AdamW(groups, fused=fused)


def everything(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, bytes]:
    """Weights, buffers and optimizer state as bytes."""
    tensors = dict(model.state_dict())
    for index, entry in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()})
    return {name: tensor.detach().contiguous().view(-1).numpy().tobytes() for name, tensor in tensors.items()}
