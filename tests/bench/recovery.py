"""Time to a validation loss on a job of which one window in a hundred overflows: ampd against a stock GradScaler loop.

The job is the digits network. In a bad window a product inside it overflows in float16 and would not in float32: zero
times 60000 x 60000 is added behind the first convolution, so that float32 computes what it always would. Two places
tell two stories. At the loss, GradScaler skips the window and loses a hundredth of the data. Before a BatchNorm, the
same skip leaves NaN in the running statistics, so that the training loss looks fine and no evaluation is finite again.

Only training is timed; both loops evaluate at the same windows, until the loss is reached or the windows are up.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ampd.core.change import build
from ampd.core.config import JobConfig
from ampd.engine.assembly import equip
from ampd.engine.device import capability_of
from ampd.engine.optim import build_optimizer
from ampd.engine.registry import load, options_of, workload_spec
from ampd.engine.trainer import Trainer
from ampd.engine.window import MicroBatch, Window
from ampd.engine.workload import WorkloadContext

CPU = torch.device("cpu")
HEADER = ["overflow at", "loop", "reached", "windows", "seconds of training"]
TARGET = 0.08  # nats; reached after two hundred windows or so, which hold a few bad ones
MOST_WINDOWS = 300
EVERY = 20
BAD_EVERY = 100
SEEDS = 3
Place = Literal["the loss", "a BatchNorm"]


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """How far a run came; `windows` and `seconds` are where it stopped."""

    reached: bool
    windows: int
    seconds: float


class Job:
    """The digits with bad windows."""

    def __init__(self, config: JobConfig, place: Place) -> None:
        spec = workload_spec("digits")
        context = WorkloadContext(config=config, device=CPU)
        self.workload: Any = load(spec.build)(options_of(spec, {}, "workload.options"), context)
        self.model: nn.Module = self.workload.model.train()
        self.windows_per_epoch: int = self.workload.windows_per_epoch
        self.is_bad = False
        self._at_loss = place == "the loss"
        if not self._at_loss:
            self.model.get_submodule("features.0").register_forward_hook(
                lambda _module, _inputs, output: output + self._overflow()
            )

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The plugin's."""
        windows: Iterator[tuple[MicroBatch, ...]] = self.workload.windows(epoch, start)
        return windows

    def stream(self) -> Iterator[Window]:
        """All windows of the job in order; in the middle of each hundred is a bad one."""
        epochs = chain.from_iterable(self.windows(epoch, 0) for epoch in count())
        for number, micro_batches in zip(range(MOST_WINDOWS), epochs, strict=False):
            self.is_bad = number % BAD_EVERY == BAD_EVERY // 2
            yield Window(number=number, epoch=number // self.windows_per_epoch, micro_batches=micro_batches)
            self.is_bad = False

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The plugin's, with the overflow where it belongs."""
        loss: Tensor = self.workload.loss(micro_batch)
        return loss + self._overflow() if self._at_loss else loss

    def evaluate(self) -> float:
        """The loss on held-out digits, in float32."""
        self.model.eval()
        with torch.no_grad():
            loss: float = self.workload.evaluate()["loss"]
        self.model.train()
        return loss

    def _overflow(self) -> Tensor:
        if not self.is_bad:
            return torch.zeros(())
        large = torch.full((1, 1), 60000.0)
        return (torch.mm(large, large) * 0.0).float().sum()


def ampd(job: Job, config: JobConfig) -> Callable[[Window], None]:
    """A step as the daemon makes it."""
    trainer = Trainer(config, equip(config, job, CPU, lambda _report: None), capability_of(CPU), MOST_WINDOWS)

    def step(window: Window) -> None:
        trainer.step(window)

    return step


def stock(job: Job, config: JobConfig) -> Callable[[Window], None]:
    """The loop of torch's AMP recipe: a skipped step is nobody's business."""
    optimizer, scaler = build_optimizer(config.optim, job.model.parameters()), torch.amp.GradScaler("cpu")

    def step(window: Window) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = job.loss(window.micro_batches[0])
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own
        scaler.step(optimizer)
        scaler.update()
        loss.item()

    return step


LOOPS = {"ampd": ampd, "GradScaler": stock}


def rows() -> list[list[str]]:
    """A row for each place and loop: the medians over the seeds."""
    places: tuple[Place, ...] = ("the loss", "a BatchNorm")
    return [_row(place, loop) for place in places for loop in LOOPS]


def _row(place: Place, loop: str) -> list[str]:
    runs = [_run(place, loop, seed) for seed in range(1, SEEDS + 1)]
    reached = [run for run in runs if run.reached]
    if not reached:
        return [place, loop, f"0 of {SEEDS}", f"> {MOST_WINDOWS}", "never"]
    windows = statistics.median(run.windows for run in reached)
    seconds = statistics.median(run.seconds for run in reached)
    return [place, loop, f"{len(reached)} of {SEEDS}", f"{windows:g}", f"{seconds:.2f}"]


def _run(place: Place, loop: str, seed: int) -> Arrival:
    config = config_of(seed)
    job = Job(config, place)
    torch.manual_seed(seed)
    step, seconds = LOOPS[loop](job, config), 0.0
    for window in job.stream():
        start = time.perf_counter()
        step(window)
        seconds += time.perf_counter() - start
        done = window.number + 1
        if done % EVERY == 0 and (loss := job.evaluate()) <= TARGET and math.isfinite(loss):
            return Arrival(reached=True, windows=done, seconds=seconds)
    return Arrival(reached=False, windows=MOST_WINDOWS, seconds=seconds)


def config_of(seed: int) -> JobConfig:
    """The plugin's own job, in float16."""
    job = {
        "job": {"name": "bench", "directory": "unused", "windows": MOST_WINDOWS, "seed": seed},
        "workload": {"name": "digits"},
        "batch": {"size": 32},
        "amp": {"dtype": "float16", "replay": "sync"},
        "optim": {"lr": 3e-3, "schedule": "constant"},
    }
    return build(job)
