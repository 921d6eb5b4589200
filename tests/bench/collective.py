"""What the agreement of two ranks costs a window: the time of training with it and without it, in turns.

    python -m tests.bench.collective [--turns 40] [--windows 25]

Two ranks on the CPU, joined by gloo, train windows of about 20 ms. A turn is so many windows with the one collective of
`Group.agree`, then as many in which each rank judges by itself, which is wrong and only here; so whatever else the machine
does falls on both. DDP averages gradients in both, so ranks wait for each other there either way, and what is left is what
the agreement adds. The figure is the median over turns of the share that the windows with it took longer.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ampd.engine.assembly import equip
from ampd.engine.device import capability_of
from ampd.engine.distributed import Group
from ampd.engine.trainer import Trainer
from ampd.engine.window import MicroBatch, Window
from tests.distributed.forks import fork
from tests.engine import toy

REPORT = Path(__file__).with_name("COLLECTIVE.md")
WANTED_SECONDS = 0.02
_WIDTH, _STEP = 256, 16


@dataclass(frozen=True, slots=True)
class Turn:
    """Mean seconds of a window, with the agreement and without."""

    agreed: float
    apart: float

    @property
    def share(self) -> float:
        """How much longer with it."""
        return self.agreed / self.apart - 1


class Apart(Group):
    """A rank that asks nobody."""

    is_asking = True

    def agree(self, figures: Tensor, losses: int, *, is_struck: bool) -> Tensor:
        """With the others only while it is asking."""
        if self.is_asking:
            return super().agree(figures, losses, is_struck=is_struck)
        return torch.cat((figures, torch.zeros(2)))


class Layers:
    """A perceptron whose windows are as long as their batch makes them."""

    windows_per_epoch = 1 << 30

    def __init__(self, samples: int) -> None:
        torch.manual_seed(1)
        layers = [layer for _ in range(3) for layer in (nn.Linear(_WIDTH, _WIDTH), nn.GELU())]
        self.model: nn.Module = nn.Sequential(*layers)
        x = torch.randn(samples, _WIDTH)
        self.batch = MicroBatch(tensors={"x": x}, samples=samples)

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The same window for ever."""
        while True:
            yield (self.batch,)

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """How far the output is from its input."""
        x = micro_batch.tensors["x"]
        return nn.functional.mse_loss(self.model(x), x)


def trainer_of(samples: int, ranks: Group) -> Trainer:
    """A trainer of windows with so many samples."""
    config = toy.config(amp={"dtype": "float32"}, distributed={"processes": 2})
    parts = equip(config, Layers(samples), toy.CPU, lambda _report: None, ranks=ranks)
    return Trainer(config, parts, capability_of(toy.CPU), 1 << 30)


def timed(subject: Trainer, windows: int) -> float:
    """Mean seconds of so many windows."""
    (batch,) = next(subject.parts.workload.windows(0, 0))
    begun = time.perf_counter()
    for number in range(windows):
        subject.step(Window(number=number, epoch=0, micro_batches=(batch,)))
    return (time.perf_counter() - begun) / windows


def samples_for(seconds: float, ranks: Apart) -> int:
    """So many that a window takes about as long on rank 0; all ranks take its word."""
    samples = _STEP * ranks.world
    while True:
        subject = trainer_of(samples, ranks)
        timed(subject, 3)
        if ranks.as_first(timed(subject, 5) >= seconds):
            return samples
        samples *= 2


def measured(ranks: Apart, turns: int, windows: int, seconds: float = WANTED_SECONDS) -> list[Turn]:
    """All turns of one rank."""
    subject = trainer_of(samples_for(seconds, ranks), ranks)
    timed(subject, windows)
    found = []
    for _ in range(turns):
        took = {}
        for ranks.is_asking in (True, False):
            took[ranks.is_asking] = timed(subject, windows)
        ranks.is_asking = True
        found.append(Turn(agreed=took[True], apart=took[False]))
    return found


def play(seed: int, directory: Path) -> None:
    """One rank; `seed` carries turns and windows, since a forked rank is told one number."""
    ranks = Apart(toy.orders())
    turns = measured(ranks, *divmod(seed, 1000))
    if ranks.rank == 0:
        (directory / "turns.json").write_text(json.dumps([asdict(turn) for turn in turns]))


def told(turns: Sequence[Turn]) -> str:
    """The figures, for a person."""
    shares = [turn.share for turn in turns]
    error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
    with_it, without = (statistics.median(getattr(t, name) for t in turns) for name in ("agreed", "apart"))
    return (
        f"| turns | window without | window with | longer by | standard error |\n|---|---|---|---|---|\n"
        f"| {len(turns)} | {without * 1e3:.2f} ms | {with_it * 1e3:.2f} ms | {statistics.median(shares):+.2%} | {error:.2%} |\n"
    )


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.collective", description=__doc__)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--windows", type=int, default=25)
    given = parser.parse_args(words)
    load = os.getloadavg()[0]
    ours = importlib.import_module(
        "tests.bench.collective"
    )  # a rank is told a name, and this may be __main__
    with tempfile.TemporaryDirectory() as directory:
        fork(ours.play, given.turns * 1000 + given.windows, Path(directory), worlds=[2])
        rows = json.loads((Path(directory) / "turns.json").read_text())
    table = told([Turn(**row) for row in rows])
    head = f"# What the agreement costs a window\n\n`python -m tests.bench.collective`, two ranks by gloo on {os.cpu_count()} cores,"
    REPORT.write_text(f"{head} load {load:.1f} before it began.\n\n{table}")
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
