"""The promise of the product with the models that come with it: a window that fell back is that window in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ampd.core import messages as m
from ampd.core.ledger import WindowRecord
from ampd.engine.trainer import Trainer
from tests.engine import toy
from tests.plugins.jobs import NAMES, built

WINDOWS = range(5)
ACCUMULATE = 3
# Hysteresis keeps the scale where it is, so that a run that overflows and one that does not stay comparable.
FLOAT16: dict[str, Any] = {"dtype": "float16", "init_scale": 1024.0, "hysteresis": 100, "replay": "sync"}


def trainer(name: str, **amp: Any) -> Trainer:
    """A trainer of a plugin with dropout, accumulation and clipping, its generator at a fixed point."""
    workload = built(name, accumulate=ACCUMULATE, dropout=0.3)
    subject = toy.trainer(workload, amp={**FLOAT16, **amp}, clip={"max_norm": 0.1})
    torch.manual_seed(7)
    return subject


def in_float32(subject: Trainer, numbers: set[int]) -> list[WindowRecord]:
    """Train, with some windows in float32 from the start and the others in float16."""
    records = []
    for number in WINDOWS:
        dtype = "float32" if number in numbers else "float16"
        subject.configure(toy.config(amp={**FLOAT16, "dtype": dtype}, clip={"max_norm": 0.1}))
        records += toy.run(subject, range(number, number + 1))
    return records


@pytest.mark.parametrize("bad", [set(WINDOWS), {1, 3, 4}, {0}], ids=["every", "some", "first"])
@pytest.mark.parametrize("name", NAMES)
def test_windows_that_fell_back_are_float32_from_the_start(name: str, bad: set[int]) -> None:
    """Weights, buffers and optimizer state, bit for bit, whatever the windows between them were in."""
    faults: dict[int, m.Fault] = dict.fromkeys(bad, "overflow")

    fell = trainer(name)
    records = toy.run(fell, WINDOWS, faults)
    straight = trainer(name)
    expected = in_float32(straight, bad)

    assert {r.window for r in records if r.precision == "float32"} == bad
    assert all(r.clipped for r in records)
    assert [(r.loss, r.grad_norm) for r in records] == [(r.loss, r.grad_norm) for r in expected]
    assert toy.state_bytes(fell) == toy.state_bytes(straight)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_attempt_was_not_float32(name: str) -> None:
    """The comparison above is not one of float32 with itself: without faults float16 ends elsewhere."""
    half = trainer(name)
    toy.run(half, WINDOWS)
    full = trainer(name, dtype="float32")
    toy.run(full, WINDOWS)

    assert toy.state_bytes(half) != toy.state_bytes(full)
