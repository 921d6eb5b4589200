"""From a Start order to a loop that is ready to run: device, parts, state, files."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ampd.core import messages as m
from ampd.core.config import JobConfig
from ampd.core.phase import Phase
from ampd.engine import checkpoint
from ampd.engine.assembly import Parts, assemble
from ampd.engine.boundary import Boundary
from ampd.engine.device import cap_memory, capability_of, choose_device, prepare_process
from ampd.engine.feed import Feed
from ampd.engine.loop import Loop
from ampd.engine.trainer import Trainer
from ampd.engine.window import Outcome, Window
from ampd.engine.writer import QuarantineTask, Writer

Report = Callable[[m.Report], None]
Declare = Callable[[Phase], None]


def prepare(
    start: m.Start, orders: queue.SimpleQueue[m.Order], report: Report, declare: Declare
) -> tuple[Loop, Writer]:
    """Build everything that the job file names and load the newest good checkpoint; reports Ready."""
    prepare_process(start.config.device)
    device = choose_device(start.config.device)
    cap_memory(start.config.amp, device)
    parts = assemble(start.config, device, report)
    return make_loop(start, parts, orders, report, declare)


def make_loop(
    start: m.Start, parts: Parts, orders: queue.SimpleQueue[m.Order], report: Report, declare: Declare
) -> tuple[Loop, Writer]:
    """A loop over `parts` that continues what the job directory holds; the writer's thread is running."""
    config = start.config
    writer = Writer(Path(start.directory), report)
    trainer = Trainer(
        config,
        parts,
        capability_of(parts.device),
        _total_windows(config, parts),
        quarantine=lambda outcome: writer.quarantine(_to_be_kept(outcome)),
    )
    boundary = Boundary(trainer, orders, report, config)
    state = _newest_state(writer, report)
    position = state["position"] if state is not None else {"window": 0, "row_bytes": 0}
    boundary.resume(state["live"] if state is not None else None, start.schedule, start.pending)
    if state is not None:
        trainer.load_state_dict(state)
    else:
        trainer.probe(_first_window(parts))
    writer.start(position["row_bytes"])
    report(_ready(trainer, boundary, position["window"], resumed=state is not None))
    return Loop(trainer, boundary, writer, orders, report, declare, position["window"]), writer


def _to_be_kept(outcome: Outcome) -> QuarantineTask:
    """What is needed to look at a window that was never applied: its inputs, and the generators it began with."""
    attempt = outcome.attempt
    assert outcome.cause is not None, "an outcome that was not applied has a cause"
    return QuarantineTask(
        window=attempt.window.number,
        cause=outcome.cause,
        content={
            "inputs": {str(n): dict(m.tensors) for n, m in enumerate(attempt.window.micro_batches)},
            "generators": outcome.mark.generators if outcome.mark is not None else {},
            "epoch": attempt.window.epoch,
            "precision": attempt.precision.value,
            "loss": str(outcome.loss),
            "grad_norm": str(outcome.norm),
            "scale": outcome.scale,
        },
    )


def _first_window(parts: Parts) -> Window:
    """The window that the job begins with; raises WorkloadError where there is none."""
    return next(Feed(parts.workload, 0))


def _total_windows(config: JobConfig, parts: Parts) -> int:
    if config.job.windows is not None:
        return config.job.windows
    assert config.job.epochs is not None, "a checked configuration has windows or epochs"
    return config.job.epochs * parts.workload.windows_per_epoch


def _newest_state(writer: Writer, report: Report) -> dict[str, Any] | None:
    def set_aside(path: Path, reason: str) -> None:
        report(m.SetAside(path=str(path), reason=reason))

    found = checkpoint.newest(writer.checkpoints, set_aside)
    return None if found is None else checkpoint.load(*found)


def _ready(trainer: Trainer, boundary: Boundary, window: int, *, resumed: bool) -> m.Ready:
    return m.Ready(
        window=window, total_windows=trainer.total_windows, resumed=resumed, revision=boundary.live.revision,
        windows_per_epoch=trainer.parts.workload.windows_per_epoch, config=trainer.config,
        capability=trainer.capability, choice=trainer.choice,
        parameters=sum(p.numel() for p in trainer.parts.parameters), torch_version=str(torch.__version__),
    )  # fmt: skip
