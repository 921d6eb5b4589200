"""A float32 run without faults is the loop that one would have written by hand, bit for bit: the guard costs no accuracy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from msgspec.structs import replace

from tests.engine import plain, toy
from tests.plugins.jobs import built

HAND = {"lr": 0.01, "warmup": 3, "total": 100, "floor": 0.1}


def settings_of(name: str, *, fused: bool, max_norm: float | None) -> dict[str, dict[str, Any]]:
    """The sections of a job file that ask for what the hand-written loop does."""
    return {
        "amp": {"dtype": "float32"},
        "clip": {"max_norm": max_norm},
        "optim": {"name": name, "fused": fused, "lr": 0.01, "warmup_windows": 3, "weight_decay": 0.1},
    }


def compare_with_hand_written(
    workloads: tuple[Any, Any], number: int, name: str, *, fused: bool, max_norm: float | None
) -> None:
    """Train two equal workloads, one by hand, and compare losses, weights, buffers and optimizer state bit for bit."""
    ours, theirs = workloads
    subject = toy.trainer(ours, **settings_of(name, fused=fused, max_norm=max_norm))
    windows = [
        replace(toy.window(0), number=n, micro_batches=w)
        for n, w in zip(range(number), ours.windows(0, 0), strict=False)
    ]
    torch.manual_seed(7)
    records = [record for window in windows for record in subject.step(window)] + subject.drain()

    optimizer = plain.optimizer_of(theirs.model, name, fused=fused, decay=0.1)
    torch.manual_seed(7)
    losses = plain.train(theirs, optimizer, windows, max_norm=max_norm, **HAND)

    assert len(records) == number
    assert [record.loss for record in records] == losses
    assert plain.everything(subject.parts.model, subject.parts.optimizer) == plain.everything(
        theirs.model, optimizer
    )


@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_run_without_faults_is_the_hand_written_loop(
    name: str, fused: bool, max_norm: float | None
) -> None:
    """In float32, with accumulation, clipping, warm-up and decay, dropout and BatchNorm: the same bits."""
    compare_with_hand_written((toy.Toy(), toy.Toy()), 8, name, fused=fused, max_norm=max_norm)


@pytest.mark.parametrize("plugin", ["digits", "bytegpt"])
def test_plugins_train_as_by_hand(plugin: str) -> None:
    """So do the models that come with the product."""
    compare_with_hand_written((built(plugin), built(plugin)), 4, "adamw", fused=True, max_norm=1.0)
