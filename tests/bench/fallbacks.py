"""What a fallback costs: a window that overflows in float16 against one good window in float16 and one in float32.

The least it can cost is both attempts; a fallback saves one update and adds the rewind. Three trainers take turns, in
`sync`, each window of the one overflowing for real.
"""

from __future__ import annotations

import time
from itertools import count

import torch

from ampd.core.change import build
from ampd.core.config import JobConfig
from ampd.engine.assembly import equip
from ampd.engine.device import capability_of
from ampd.engine.trainer import Trainer
from ampd.engine.window import Window
from ampd.engine.workload import WorkloadContext
from tests.bench.racer import Turn
from tests.bench.report import spread
from tests.bench.tasks import TASKS, Task

CPU = torch.device("cpu")
HEADER = ["model", "fallback by float16 + float32", "the same in processor time", "rounds"]
ROUNDS = {"mlp-256": 60, "mlp-1024": 20, "bytegpt": 12}


class Stepper:
    """A trainer that is given one window after another."""

    def __init__(self, task: Task, dtype: str, *, overflows: bool = False) -> None:
        config = config_of(dtype)
        workload = task.build(WorkloadContext(config=config, device=CPU))
        parts = equip(config, workload, CPU, lambda _report: None)
        self._trainer = Trainer(config, parts, capability_of(CPU), 2**40)
        self._windows = zip(count(1), workload.windows(0, 0), strict=False)
        self._overflows = overflows

    def turn(self) -> Turn:
        """The time of a window, by the clock and of the processor."""
        number, micro_batches = next(self._windows)
        if self._overflows:
            self._trainer.injector.arm("overflow", 1)
        window = Window(number=number, epoch=0, micro_batches=micro_batches)
        wall, cpu = time.perf_counter(), time.thread_time()
        (record,) = self._trainer.step(window)
        elapsed = time.perf_counter() - wall, time.thread_time() - cpu
        assert bool(record.replays) is self._overflows, record
        return elapsed


def config_of(dtype: str) -> JobConfig:
    """A job in which faults may be injected; its scale stays where float16 is comfortable."""
    job = {
        "job": {"name": "bench", "directory": "unused", "windows": 2**40},
        "workload": {"name": "digits"},
        "amp": {"dtype": dtype, "replay": "sync", "init_scale": 128.0, "hysteresis": 2**40},
        "clip": {"max_norm": 1.0},
        "optim": {"schedule": "constant"},
        "inject": {"allowed": True},
    }
    return build(job)


def rows() -> list[list[str]]:
    """A row for each model."""
    return [_row(TASKS[name], rounds) for name, rounds in ROUNDS.items()]


def _row(task: Task, rounds: int) -> list[str]:
    fallback = Stepper(task, "float16", overflows=True)
    half, full = Stepper(task, "float16"), Stepper(task, "float32")
    for stepper in (fallback, half, full) * 2:
        stepper.turn()
    turns = [(fallback.turn(), half.turn(), full.turn()) for _ in range(rounds)]
    wall, cpu = ([ours[k] / (low[k] + wide[k]) for ours, low, wide in turns] for k in (0, 1))
    return [task.name, spread(wall), spread(cpu), str(rounds)]
