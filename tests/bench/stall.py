"""How long the step loop stands still for a checkpoint: ampd, torch.save, and torch.distributed.checkpoint both ways.

    .venv/bin/python -m tests.bench.stall          # writes STALL.md; `--rounds 15 --width 2048`

All save one trainer's state in turns, in an order drawn anew for each round. What counts is the time until the loop may
go on, and beside it the time until the state is on the disk: ampd copies at the boundary and its writer does the rest, an
asynchronous DCP copies too, and the other two write first. What ampd writes is read back and has checksums, which is
why it may take the longest until it is there; nobody waits for that.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import state_dict_saver

from ampd.core.change import build
from ampd.core.config import JobConfig
from ampd.core.histogram import Distributions
from ampd.engine.assembly import equip
from ampd.engine.boundary import Boundary
from ampd.engine.device import capability_of
from ampd.engine.leaves import flatten
from ampd.engine.ranks import Alone
from ampd.engine.saves import Saves
from ampd.engine.snapshot import Telemetry
from ampd.engine.stopwatch import Stopwatch
from ampd.engine.trainer import Trainer
from ampd.engine.window import Window
from ampd.engine.writer import Writer
from tests.bench import report
from tests.bench.tasks import Mlp

RESULTS = Path(__file__).with_name("STALL.md")
HEADER = ["saver", "the loop stands still, ms", "on the disk after, ms", "rounds"]
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of one save, from the boundary on."""

    stall: float
    whole: float


Save = Callable[[Path], Timed]
"""Save into a directory that is empty."""


def trainer_of(width: int) -> Trainer:
    """A trainer after one window, so that its optimizer has a state."""
    config = config_of()
    workload = Mlp(width)
    trainer = Trainer(config, equip(config, workload, CPU, _silent), capability_of(CPU), 10**6)
    trainer.step(Window(number=0, epoch=0, micro_batches=next(workload.windows(0, 0))))
    return trainer


def config_of() -> JobConfig:
    """float32: the precision does not change what is saved."""
    job = {"name": "bench", "directory": "unused", "windows": 10**6}
    return build({"job": job, "workload": {"name": "digits"}, "amp": {"dtype": "float32"}})


def savers(trainer: Trainer) -> dict[str, Save]:
    """By name; all of the same state."""
    return {
        "ampd": lambda place: by_ampd(trainer, place),
        "torch.save": lambda place: at_once(lambda: torch.save(state_of(trainer), place / "state.pt")),
        "DCP": lambda place: at_once(
            lambda: state_dict_saver.save(state_of(trainer), checkpoint_id=place / "s")
        ),
        "DCP, async_save": lambda place: by_async_save(trainer, place),
    }


def by_ampd(trainer: Trainer, place: Path) -> Timed:
    """As the loop does it: `Saves` at the boundary, and the writer's thread."""
    writer, watch = Writer(place, _silent), Stopwatch()
    boundary = Boundary(trainer, Alone().orders(), _silent, trainer.config)
    telemetry = Telemetry(
        trainer, writer.rows, _silent, watch, Distributions(), base=trainer.ledger.job.copy()
    )
    saves = Saves(trainer, boundary, writer, telemetry, watch, _silent)
    writer.start(0)
    saves.want()
    begun = time.perf_counter()
    saves.begin(1)
    stalled = time.perf_counter()
    writer.wait()
    ended = time.perf_counter()
    writer.close()
    assert writer.trouble is None, writer.trouble
    return Timed(stall=stalled - begun, whole=ended - begun)


def at_once(save: Callable[[], object]) -> Timed:
    """A save that the loop waits for; made to last, as ampd's is."""
    begun = time.perf_counter()
    save()
    stalled = time.perf_counter()
    os.sync()
    return Timed(stall=stalled - begun, whole=time.perf_counter() - begun)


def by_async_save(trainer: Trainer, place: Path) -> Timed:
    """The loop goes on when the call returns."""
    begun = time.perf_counter()
    future: Any = state_dict_saver.async_save(state_of(trainer), checkpoint_id=place / "s")
    stalled = time.perf_counter()
    future.result()
    os.sync()
    return Timed(stall=stalled - begun, whole=time.perf_counter() - begun)


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Model and optimizer, as torch's own recipes keep them: nothing is copied yet."""
    return {
        "model": trainer.parts.model.state_dict(),
        "optimizer": trainer.parts.optimizer.state_dict(),
    }


def rounds(savers: dict[str, Save], count: int, seed: int) -> Iterator[tuple[str, Timed]]:
    """Everybody once a round; what the last one left to the disk is down before the next begins."""
    draw = random.Random(seed)
    for _ in range(count):
        for name in draw.sample(list(savers), len(savers)):
            place = Path(tempfile.mkdtemp(prefix="ampd-"))
            os.sync()
            yield name, savers[name](place)
            shutil.rmtree(place)


def row(name: str, timed: Sequence[Timed]) -> list[str]:
    """Medians with their errors and quartiles."""
    stalls, wholes = ([1000 * getattr(each, which) for each in timed] for which in ("stall", "whole"))
    return [name, report.spread(stalls, 1), report.spread(wholes, 1), str(len(timed))]


def page(timed: dict[str, list[Timed]], size: int, command: str, load: float) -> str:
    """STALL.md."""
    ours = statistics.median(each.stall for each in timed["ampd"])
    others = {name: statistics.median(each.stall for each in own) for name, own in timed.items()}
    ratios = ", ".join(
        f"{stall / ours:.1f} times as long with {name}" for name, stall in others.items() if name != "ampd"
    )
    words = (
        f"The state has {size / 1e6:.0f} MB: a model and AdamW's two moments. Medians ± standard error [quartiles]. Against"
        f" ampd, the loop stands still {ratios}. `On the disk` includes an fsync or sync for everybody; ampd has read its"
        " files back by then."
    )
    how = report.circumstances(command, load, ("torch",), how="one torch thread")
    rows = [row(name, own) for name, own in timed.items()]
    return "\n\n".join(
        ["# How long the step loop stands still for a checkpoint", how, words, report.table(HEADER, rows)]
    )


def _silent(_said: object) -> None:
    """Nobody listens."""


def main() -> None:
    """Run the rounds and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stall")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load, trainer = os.getloadavg()[0], trainer_of(given.width)
    tensors, _plain = flatten(trainer.state_dict())
    contest = savers(trainer)
    timed: dict[str, list[Timed]] = {name: [] for name in contest}
    for name, each in rounds(contest, given.rounds, given.seed):
        timed[name].append(each)
    command = f"python -m tests.bench.stall --rounds {given.rounds} --width {given.width}"
    RESULTS.write_text(page(timed, sum(t.nbytes for t in tensors.values()), command, load) + "\n")


if __name__ == "__main__":
    main()
