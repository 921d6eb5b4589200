"""The worker of the benchmark's job: ampd's own loop, in which the others take their turns between two windows.

The loop asks its workload for the next window; there the race holds it, lets the others run, and goes on. So ampd's time
runs from the moment that the loop is given the first window of a turn until it asks for the first one after it: step,
records, boundary, telemetry and feed, everything that the loop does.

The thread that trains has a core of its own; the link's, the writer's and ZeroMQ's threads are sent to the other.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ampd.control.lifeline import PulsePage
from ampd.control.worker_link import WorkerLink
from ampd.core import messages as m
from ampd.engine.assembly import equip
from ampd.engine.device import prepare_process
from ampd.engine.job import make_loop
from ampd.engine.window import MicroBatch
from ampd.engine.workload import WorkloadContext
from tests.bench.contestants import Contestant, contestants
from tests.bench.tasks import TASKS, Task

OURS = "ampd"
WARM_UP_STEPS = 4
SLICES = 2
"""A round has so many turns of everybody: a shared machine changes its speed from second to second, by more than what
is measured here, and all have to meet the same of it. No more than that, for snapshots come five times a second of the clock,
all of them in turns of ampd: in turns of a few steps it would send several times as many in a step as it does alone."""
Turn = tuple[float, float]
"""Seconds of a step, and of processor time of the thread that trains, as the mean over a round."""


class Race:
    """The workload of ampd's job, which lets the others run whenever a turn of its own is over."""

    windows_per_epoch = 2**40

    def __init__(self, task: Task, context: WorkloadContext, link: WorkerLink) -> None:
        dtype = context.config.amp.dtype
        self.turns: dict[str, list[Turn]] = {OURS: []}
        self._steps, self._rounds = task.steps[dtype], task.rounds[dtype]
        self._link = link
        self._workload = task.build(context)
        self._others: dict[str, Contestant] = {
            name: build(task.build(context), context.config) for name, build in contestants(dtype).items()
        }
        self.model = self._workload.model

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The task's loss."""
        return self._workload.loss(micro_batch)

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The task's windows, with the race between them; the job is stopped after the last round."""
        data = self._workload.windows(0, 0)
        yield from islice(data, WARM_UP_STEPS)
        self._get_ready()
        for _ in range(self._rounds):
            took = dict.fromkeys((OURS, *self._others), (0.0, 0.0))
            for number, steps in enumerate(_slices(self._steps)):
                for name in _in_turn(list(took), number):
                    before = _now()
                    if name == OURS:
                        yield from islice(data, steps)
                    else:
                        self._others[name].run(steps)
                    took[name] = _more(took[name], before)
            for name, (wall, cpu) in took.items():
                self.turns.setdefault(name, []).append((wall / self._steps, cpu / self._steps))
        self._link.orders.put(m.Stop(save=False))
        yield next(data)

    def _get_ready(self) -> None:
        for other in self._others.values():
            other.run(WARM_UP_STEPS)
        pin()
        gc.collect()
        gc.freeze()  # or each collection would look at everything that the peers have imported


def pin() -> None:
    """This thread on the first core, every other of this process on the last, where there are two."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # the daemon's own core was inherited
    cores = sorted(os.sched_getaffinity(0))
    for thread in map(int, os.listdir("/proc/self/task")):
        os.sched_setaffinity(thread, {cores[0] if thread == threading.get_native_id() else cores[-1]})


def _now() -> Turn:
    return time.perf_counter(), time.thread_time()


def _more(took: Turn, before: Turn) -> Turn:
    wall, cpu = _now()
    return took[0] + wall - before[0], took[1] + cpu - before[1]


def _slices(steps: int) -> list[int]:
    """The steps of a turn in pieces, between which the others run."""
    pieces = min(SLICES, steps)
    return [steps // pieces + (number < steps % pieces) for number in range(pieces)]


def _in_turn(names: list[str], number: int) -> list[str]:
    """Another order each time: nobody always follows the same neighbour."""
    shift = number % len(names)
    return names[shift:] + names[:shift]


def race(task: Task, link: WorkerLink, pulse: PulsePage) -> tuple[m.Finished, Race]:
    """Take the job that the supervisor hands out, and run the race in it."""
    start = link.orders.get()
    assert isinstance(start, m.Start), start
    prepare_process(start.config.device)
    device = torch.device("cpu")
    workload = Race(task, WorkloadContext(config=start.config, device=device), link)
    parts = equip(start.config, workload, device, link.report)
    loop, writer = make_loop(start, parts, link.orders, link.report, pulse.declare)
    try:
        finished = loop.run()
    finally:
        writer.close()
    assert finished is not None, "nothing here rolls back"
    return finished, workload


def main() -> None:
    """A worker as `ampd start` starts it, which leaves its turns in a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--turns", required=True, type=Path)
    parser.add_argument("--link", required=True)
    parser.add_argument("--rank", type=int, default=0)
    arguments = parser.parse_args()
    link = WorkerLink(arguments.link, arguments.rank)
    link.start()
    link.report(m.Hello(rank=arguments.rank, pid=os.getpid()))
    finished, run = race(TASKS[arguments.task], link, PulsePage.open(arguments.link))
    arguments.turns.write_text(json.dumps(run.turns))
    link.report(finished)
    link.close(10.0)


if __name__ == "__main__":
    main()
