"""The worker of the load benchmark: ampd's own loop on a small model, with the moment of every window written down.

A window is made as long as is asked for by training on more micro-batches, so that it computes all of that time, as a
real one does, and never sleeps. The moments are of CLOCK_MONOTONIC, which all processes of a machine share: who loads
the daemon knows which of them fell under the load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import BinaryIO

import msgspec
import torch
from torch import Tensor

from ampd.control.lifeline import PulsePage
from ampd.control.worker_link import WorkerLink
from ampd.core import messages as m
from ampd.engine.assembly import equip
from ampd.engine.device import prepare_process
from ampd.engine.job import make_loop
from ampd.engine.window import MicroBatch
from tests.bench.load import take_precedence
from tests.bench.tasks import Mlp

WARM_UP = (30, 6, 6)
"""Windows of each guess at how long a window will be; what a window costs beside its micro-batches is in the later ones."""


class Metronome:
    """Regression whose windows take `seconds`, each noted in `moments` when the loop asks for it."""

    windows_per_epoch = 2**40

    def __init__(self, seconds: float, moments: BinaryIO) -> None:
        self._task = Mlp(256)
        self._seconds = seconds
        self._moments = moments
        self.model = self._task.model

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The task's loss."""
        return self._task.loss(micro_batch)

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The first few show how long a window is, and so how many make one of the wanted length."""
        data, together = self._task.windows(0, 0), 1
        for count in WARM_UP:
            asked = []
            for _ in range(count):
                asked.append(time.monotonic())
                yield tuple(chain.from_iterable(islice(data, together)))
            took = statistics.median(b - a for a, b in pairwise([*asked, time.monotonic()]))
            together = max(1, round(together * self._seconds / took))
        while True:
            self._moments.write(f"{time.monotonic():.6f}\n".encode())
            yield tuple(chain.from_iterable(islice(data, together)))


def said_by_all(link: WorkerLink, arguments: argparse.Namespace) -> Callable[[m.Report], None]:
    """Reports go out on the link; a snapshot on a link of every further rank as well, as its own."""
    others = [WorkerLink(arguments.link, rank) for rank in range(1, arguments.ranks)]
    for rank, other in enumerate(others, start=1):
        other.start()
        other.report(m.Hello(rank=rank, pid=os.getpid()))

    def say(report: m.Report) -> None:
        link.report(report)
        if isinstance(report, m.Snapshot):
            for rank, other in enumerate(others, start=1):
                other.report(msgspec.structs.replace(report, rank=rank))

    return say


def main() -> None:
    """A worker as `ampd start` starts it, on the first core with all its threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", required=True, type=float)
    parser.add_argument("--moments", required=True, type=Path)
    parser.add_argument("--link", required=True)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1, help="links that push snapshots, each as a rank")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {0})
    take_precedence()
    link = WorkerLink(arguments.link, arguments.rank)
    link.start()
    link.report(m.Hello(rank=arguments.rank, pid=os.getpid()))
    pulse = PulsePage.open(arguments.link)
    start = link.orders.get()
    assert isinstance(start, m.Start), start
    prepare_process(start.config.device)
    device = torch.device("cpu")
    with arguments.moments.open("wb", buffering=0) as moments:
        workload = Metronome(arguments.seconds, moments)
        say = said_by_all(link, arguments)
        parts = equip(start.config, workload, device, say)
        loop, writer = make_loop(start, parts, link.orders, say, pulse.declare)
        try:
            finished = loop.run()
        finally:
            writer.close()
    assert finished is not None, "nothing here rolls back"
    link.report(finished)
    link.close(10.0)


if __name__ == "__main__":
    main()
