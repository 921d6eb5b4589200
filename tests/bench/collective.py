"""What the agreement of two ranks costs a window: the time of training with it and without it, in turns.

    python -m tests.bench.collective [--turns 40] [--windows 25]

Two ranks on the CPU, joined by gloo, train windows of about 20 ms, in three ways: `early`, the agreement as it is, begun
before the last pass; `late`, begun when that is over, as it is between unlike processors; and `none`, in which each rank
judges by itself, which is wrong and only here. DDP averages gradients in all three, so ranks wait for each other there either
way, and what is left is what the agreement adds. A turn is so many windows of each way, in an order that is drawn for each
turn, so that whatever else the machine does, and whatever a way leaves behind for the next one, falls on all of them.

Three figures, of rank 0, each a median over turns. *Longer by* is the share that windows took longer than those of `none` in
the same turn: it is what counts, and on a machine that is busy otherwise it says little. *In agree* is the time from having
figures to having agreed on them. *CPU* is that of all threads of the process, which no other process can add to; where there
are as many ranks as cores it is time that windows lose, wherever it is spent.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
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
_ENOUGH_SECONDS = 3600.0  # a machine that does much else may take ten times as long


class Way(StrEnum):
    """When ranks ask each other."""

    EARLY = "early"
    LATE = "late"
    NONE = "none"


class Spent(msgspec.Struct, frozen=True):
    """Mean seconds of a window: its length, what of it was spent in agreeing, and CPU time of all threads."""

    window: float
    agreeing: float
    cpu: float


Turn = dict[Way, Spent]


class Asking(Group):
    """A rank that asks in one way or the other, and times it."""

    def __init__(self) -> None:
        super().__init__(toy.orders())
        self.way = Way.EARLY
        self.agreeing = 0.0

    def foretell(self, losses: Sequence[Tensor], strays: Callable[[], Tensor]) -> None:
        """Only where it asks early."""
        if self.way is Way.EARLY:
            super().foretell(losses, strays)

    def agree(self, figures: Tensor, losses: int, *, is_struck: bool) -> Tensor:
        """With the others, or without."""
        begun = time.perf_counter()
        if self.way is Way.NONE:
            agreed = torch.cat((figures, torch.zeros(4)))
        else:
            agreed = super().agree(figures, losses, is_struck=is_struck)
        self.agreeing += time.perf_counter() - begun
        return agreed


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


def samples_for(seconds: float, ranks: Asking) -> int:
    """So many that a window keeps rank 0 busy for about as long, whatever else the machine does; all take its word."""
    samples = _STEP * ranks.world
    while True:
        subject = trainer_of(samples, ranks)
        timed(subject, 3)
        begun = time.thread_time()
        timed(subject, 5)
        if ranks.as_first(time.thread_time() - begun >= 5 * seconds):
            return samples
        samples += ranks.world * (samples // ranks.world // 4)


def spent(subject: Trainer, ranks: Asking, windows: int) -> Spent:
    """On so many windows, in the way that is set."""
    ranks.all(True)  # nobody begins before the others have ended
    ranks.agreeing, begun = 0.0, time.process_time()
    window = timed(subject, windows)
    return Spent(window, ranks.agreeing / windows, (time.process_time() - begun) / windows)


def measured(ranks: Asking, turns: int, windows: int, seconds: float = WANTED_SECONDS) -> list[Turn]:
    """All turns of one rank; every rank draws the same orders."""
    subject = trainer_of(samples_for(seconds, ranks), ranks)
    draw = random.Random(turns)
    found: list[Turn] = []
    for _ in range(turns):
        turn: Turn = {}
        for ranks.way in draw.sample(list(Way), len(Way)):
            turn[ranks.way] = spent(subject, ranks, windows)
        found.append(turn)
    return found


def play(seed: int, directory: Path) -> None:
    """One rank; `seed` carries turns and windows, since a forked rank is told one number."""
    ranks = Asking()
    turns = measured(ranks, *divmod(seed, 1000))
    if ranks.rank == 0:
        (directory / "turns.json").write_bytes(msgspec.json.encode(turns))


def read(directory: Path) -> list[Turn]:
    """What `play` left there."""
    return msgspec.json.decode((directory / "turns.json").read_bytes(), type=list[Turn])


def told(turns: Sequence[Turn]) -> str:
    """The figures, for a person."""
    head = "| way | window | longer by | standard error | in agree | CPU |\n|---|---|---|---|---|---|\n"
    return head + "".join(_row(way, turns) for way in Way)


def _row(way: Way, turns: Sequence[Turn]) -> str:
    shares = [turn[way].window / turn[Way.NONE].window - 1 for turn in turns]
    error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
    names = Spent.__struct_fields__
    window, agreeing, cpu = (statistics.median(getattr(t[way], name) for t in turns) * 1e3 for name in names)
    longer = f"{statistics.median(shares):+.2%} | {error:.2%}"
    return f"| {way} | {window:.2f} ms | {longer} | {agreeing:.3f} ms | {cpu:.2f} ms |\n"


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
        fork(
            ours.play,
            given.turns * 1000 + given.windows,
            Path(directory),
            worlds=[2],
            seconds=_ENOUGH_SECONDS,
        )
        table = told(read(Path(directory)))
    _before, _heading, findings = REPORT.read_text().partition("\n## ")
    command = f"`python -m tests.bench.collective --turns {given.turns} --windows {given.windows}`"
    machine = f"two ranks by gloo on {os.cpu_count()} cores, load {load:.1f} before it began"
    REPORT.write_text(
        f"# What the agreement costs a window\n\n{command}, {machine}.\n\n{table}\n## {findings}"
    )
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
