"""Whole runs of the loop on each of two ranks: what policy does when the trouble is one rank's alone."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch.distributed as dist

from ampd.core import messages as m
from ampd.core.guard import parse
from ampd.core.trial import Terms
from ampd.engine import disk_hold
from ampd.engine.distributed import Group
from tests.engine import toy
from tests.engine.runs import Run, act_at

SHORT = {"windows": 12}
BAD = m.Inject(fault="nan-loss", rank=1)
ROOM_BYTES = 6000
"""Enough for the loss log of a short run, and too little for its checkpoint."""

Told = dict[str, Any]


def run_on(directory: Path, *, schedule: tuple[m.AppliedAction, ...] = (), **options: Any) -> Run:
    """A rank's run of a short job; rank 1 is the one in trouble."""
    return Run(
        directory,
        schedule=schedule,
        ranks_of=Group,
        **{"job": SHORT, "distributed": {"processes": 2}, **options},
    )


def told_by(run: Run, finished: m.Finished | None) -> Told:
    """What it said, how it ended, and the hash of its weights."""
    weights = b"".join(w.detach().numpy().tobytes() for w in run.workload.model.parameters())
    return {
        "reports": [msgspec.to_builtins(report) for report in run.reports if type(report) is not m.Snapshot],
        "finished": msgspec.to_builtins(finished),
        "weights": hashlib.sha256(weights).hexdigest(),
        "windows": run.loop.window,
    }


def bad_window(directory: Path, policy: str) -> Told:
    """A window that is bad on rank 1, under a policy; whoever pauses is told to go on."""
    run = run_on(directory, schedule=(act_at(3, BAD),), amp={"on_bad_window": policy})
    resume_when_held(run)
    return told_by(run, run.leave())


def rollback(directory: Path) -> Told:
    """The same under `rollback`: the group leaves, and the next one goes back and passes over it."""
    options: dict[str, Any] = {"checkpoint": {"every_windows": 4}, "amp": {"on_bad_window": "rollback"}}
    first = run_on(directory, schedule=(act_at(6, BAD),), **options)
    left = first.leave()
    done = tuple(report.applied for report in first.said(m.Applied))
    second = run_on(directory, schedule=done, **options)
    return told_by(second, second.leave()) | {"first": msgspec.to_builtins(left)}


def trial(directory: Path) -> Told:
    """A change on trial, and a bad window on rank 1 in it."""
    run = run_on(directory)
    terms = Terms(windows=4, guards=(parse("nonfinite==0"),))
    if dist.get_rank() == 0:
        for action in (m.Configure(changes={"optim.lr": 0.5}, trial=terms), BAD):
            run.orders.put(m.Act(request_id=type(action).__name__, action=action))
    return told_by(run, run.leave())


def full_disk(directory: Path) -> Told:
    """No checkpoint fits on rank 0's disk, until the run has said that it holds."""
    disk_hold._FIRST_SECONDS = 0.05
    run = run_on(directory, workload=toy.Toy(width=512), checkpoint={"every_windows": 4})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if dist.get_rank() == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, hard))
        run.on_report(m.Holding, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
    return told_by(run, run.leave())


def divergence(directory: Path, policy: str, every: int = 5) -> Told:
    """A weight of rank 1 changes at window 3."""
    inject = m.Inject(fault="diverge", rank=1)
    options = {"processes": 2, "check_every_windows": every, "on_divergence": policy}
    run = run_on(directory, schedule=(act_at(3, inject),), distributed=options)
    resume_when_held(run)
    return told_by(run, run.leave())


def alike(directory: Path) -> Told:
    """Nothing happens, and the weights are compared before every window."""
    run = run_on(directory, distributed={"processes": 2, "check_every_windows": 1})
    return told_by(run, run.leave())


def resume_when_held(run: Run) -> None:
    """Order to go on, for each time that the run says that it holds."""

    def resume() -> None:
        if dist.get_rank() == 0:
            run.orders.put(m.Resume(request_id="go-on"))
        run.on_report(m.Holding, resume)

    run.on_report(m.Holding, resume)


CASES: dict[str, Callable[[Path], Told]] = {
    "skip": lambda directory: bad_window(directory, "skip"),
    "quarantine": lambda directory: bad_window(directory, "quarantine"),
    "pause": lambda directory: bad_window(directory, "pause"),
    "abort": lambda directory: bad_window(directory, "abort"),
    "rollback": rollback,
    "trial": trial,
    "full disk": full_disk,
    "apart, pause": lambda directory: divergence(directory, "pause"),
    "apart, abort": lambda directory: divergence(directory, "abort"),
    "apart, warn": lambda directory: divergence(directory, "warn"),
    "alike": alike,
}


def play_all(_seed: int, directory: Path) -> None:
    """Play all cases in this rank, and write down what came of them."""
    told = {name: case(directory / name.replace(" ", "-")) for name, case in CASES.items()}
    (directory / f"{dist.get_rank()}.json").write_text(json.dumps(told))
