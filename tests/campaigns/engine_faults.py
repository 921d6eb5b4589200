"""Random faults in random windows, modes and ladders: the ledger balances, nothing is lost or applied twice, all is finite."""

from __future__ import annotations

import random

import torch

from ampd.core import messages as m
from tests.engine import toy

NAME = "engine-faults"
_WINDOWS = 24


def case(seed: int) -> None:
    """Train some windows with faults and check every promise of the guard."""
    draw = random.Random(seed)
    torch.set_num_threads(1)
    subject = toy.trainer(
        toy.Toy(seed=draw.randrange(1000), micro_batches=draw.choice([1, 2, 3])),
        amp={
            "dtype": draw.choice(["float16", "bfloat16", "float32"]),
            "replay": draw.choice(["sync", "adaptive"]),
            "risky_windows": draw.choice([0, 2]),
            "ladder": draw.choice([["float32"], ["retry", "float32"], ["retry", "bfloat16", "float32"]]),
            "init_scale": draw.choice([2.0**4, 2.0**16]),
            "hysteresis": draw.choice([1, 3]),
        },
        clip={"max_norm": draw.choice([None, 0.1])},
    )
    kinds: tuple[m.Fault, ...] = ("overflow", "nan-loss", "nan-grad")
    faults = {number: draw.choice(kinds) for number in range(_WINDOWS) if draw.random() < 0.3}

    records = toy.run(subject, range(_WINDOWS), faults)

    assert [r.window for r in records] == list(range(_WINDOWS))
    assert {r.window for r in records if r.skipped} == {n for n, kind in faults.items() if kind != "overflow"}
    assert all(
        torch.isfinite(t).all() for t in (*subject.parts.model.parameters(), *subject.parts.model.buffers())
    )
    steps = {float(entry["step"]) for entry in subject.parts.optimizer.state.values()}
    assert steps == {float(subject.ledger.job.applied)}, (steps, subject.ledger.job)
    low = subject.config.amp.min_scale
    assert all(r.scale is None or r.scale >= low for r in records)
