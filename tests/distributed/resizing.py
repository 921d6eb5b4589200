"""Ranks that train a part of an epoch each time, and write down which samples they took for which window.

A run goes on from the checkpoint in its directory, however many ranks saved it, and is told to stop while it runs a
window; where exactly it stops is its own affair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ampd.core import messages as m
from ampd.core.order import DataOrder
from ampd.engine.assembly import equip
from ampd.engine.distributed import Group
from ampd.engine.job import make_loop, only_figures
from ampd.engine.ranks import Ranks
from ampd.engine.window import MicroBatch
from tests.engine import toy

WINDOWS, MICRO_BATCHES, SAMPLES = 24, 2, 6
BEGIN, MIDDLE = 7, 15
IN_ALL = WINDOWS * MICRO_BATCHES * SAMPLES


class Numbered:
    """Samples that know their numbers; each is of one window of the epoch."""

    windows_per_epoch = WINDOWS

    def __init__(self, orders: Any, stop_at: int, taken: Path) -> None:
        torch.manual_seed(1)
        self.model: nn.Module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.1), nn.Linear(8, 1))
        self._orders, self._stop_at, self._taken = orders, stop_at, taken
        self._order = DataOrder(IN_ALL, seed=3)
        self._number = 0

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The windows of an epoch; the stop is ordered as its window is given out."""
        size = MICRO_BATCHES * SAMPLES
        for self._number in range(start, WINDOWS):
            if self._number == self._stop_at:
                self._orders.put(m.Stop(save=True))
            samples = self._order.batch(epoch, self._number * size, size)
            yield tuple(_micro_batch(samples[at : at + SAMPLES]) for at in range(0, size, SAMPLES))

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """Mean squared error of the number's own half."""
        samples = micro_batch.tensors["sample"]
        with self._taken.open("a") as log:
            log.write(json.dumps([self._number, samples.tolist()]) + "\n")
        scaled = samples.float().unsqueeze(1) / IN_ALL
        return nn.functional.mse_loss(self.model(scaled), scaled / 2)


def _micro_batch(samples: Sequence[int]) -> MicroBatch:
    return MicroBatch(tensors={"sample": torch.tensor(samples)}, samples=len(samples))


def train(directory: Path, stop_at: int, ranks: Ranks, orders: Any) -> list[m.Report]:
    """Go on from the newest checkpoint to the stop, or to the end of the epoch; what rank 0 said."""
    config = toy.config(job={"windows": WINDOWS}, amp={"dtype": "float32"}, batch={"size": SAMPLES})
    said: list[m.Report] = []
    report = only_figures(said.append) if ranks.rank else said.append
    taken = directory / f"taken-by-{ranks.rank}-of-{ranks.world}.jsonl"
    workload = Numbered(orders if ranks.rank == 0 else toy.orders(), stop_at, taken)
    parts = equip(config, workload, toy.CPU, report, ranks=ranks)
    start = m.Start(config=config, directory=str(directory), schedule=(), pending=())
    loop, writer = make_loop(start, parts, ranks.orders(), report, lambda _phase: None)
    try:
        finished = loop.run()
    finally:
        writer.close()
    assert finished is not None and finished.result in ("stopped", "completed"), finished
    return said


def begin(_seed: int, directory: Path) -> None:
    """The first windows, as a rank."""
    _train_as_rank(directory, stop_at=BEGIN)


def end(_seed: int, directory: Path) -> None:
    """All windows that are left, as a rank."""
    _train_as_rank(directory, stop_at=WINDOWS)


def _train_as_rank(directory: Path, stop_at: int) -> None:
    orders = toy.orders()
    train(directory, stop_at, Group(orders), orders)
