"""From a Start order to a loop that is ready to run: device, parts, state, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from ampd.core import messages as m
from ampd.core.config import JobConfig
from ampd.core.group import DistributedSection
from ampd.core.phase import Phase
from ampd.engine import checkpoint, distributed, registry
from ampd.engine.assembly import Parts, assemble
from ampd.engine.boundary import Boundary
from ampd.engine.device import cap_memory, capability_of, choose_device, prepare_process
from ampd.engine.feed import Feed
from ampd.engine.loop import Loop
from ampd.engine.ranks import Orders, Ranks
from ampd.engine.rows_writer import RowsWriter
from ampd.engine.shared_directory import require_shared
from ampd.engine.shared_files import SharedFiles
from ampd.engine.state import saved_by
from ampd.engine.trainer import Trainer
from ampd.engine.window import Outcome, Window
from ampd.engine.writer import CHECKPOINTS, Files, QuarantineTask, Writer

Report = Callable[[m.Report], None]
Declare = Callable[[Phase], None]
_SHARDS = "ampd.engine.sharded:Shards"  # a third of torch's own time to load, which other jobs need not wait
_STARTS = msgspec.msgpack.Decoder(m.Start)


def prepare(
    start: m.Start | None,
    orders: Orders,
    report: Report,
    declare: Declare,
    waits: Callable[[bool], None] = lambda _is_waiting: None,
    *,
    speaks: bool = True,
    leads: bool = True,
) -> tuple[Loop, Files]:
    """Build everything that the job file names and load the newest good checkpoint; reports Ready.

    Rank 0 has the order to start, and gives it to the others. A rank that `speaks` does so for its node, and one node
    `leads`: the first rank of that one is rank 0. `waits` is told when this rank begins to wait for others, and when it ends.
    """
    ranks = distributed.join(orders, waits, leads=leads)
    start = _STARTS.decode(ranks.spread(msgspec.msgpack.encode(start)))
    if not speaks:
        report = only_figures(report)
    if start.leader is not None:
        report(m.Joined(first_rank=ranks.rank, world=ranks.world, leader=start.leader))
        require_shared(Path(start.directory), ranks)
    ranks = under_strategy(ranks, start.config.distributed, orders, report)
    prepare_process(start.config.device)
    device = choose_device(start.config.device)
    cap_memory(start.config.amp, device)
    parts = assemble(start.config, device, report, ranks)
    return make_loop(start, parts, ranks.orders(), report, declare)


def under_strategy(ranks: Ranks, section: DistributedSection, orders: Orders, report: Report) -> Ranks:
    """The ranks as they share the weights, where they do."""
    if section.strategy == "ddp":
        return ranks
    if ranks.world == 1:
        message = 'distributed.strategy = "fsdp2" has nothing to share: the job has one process'
        report(m.Warned(topic="distributed", message=message))
        return ranks
    shards: Ranks = registry.load(_SHARDS)(orders)
    return shards


def make_loop(
    start: m.Start, parts: Parts, orders: Orders, report: Report, declare: Declare
) -> tuple[Loop, Files]:
    """A loop over `parts` that continues what the job directory holds; the writer's thread is running."""
    config = start.config
    directory = Path(start.directory)
    writer = files_of(directory, report, parts.ranks)
    trainer = Trainer(
        config,
        parts,
        capability_of(parts.device),
        _total_windows(config, parts),
        quarantine=lambda outcome: writer.quarantine(_to_be_kept(outcome)),
    )
    boundary = Boundary(trainer, orders, report, config)
    state = _newest_state(directory / CHECKPOINTS, report, parts.ranks)
    position = state["position"] if state is not None else {"window": 0, "row_bytes": 0}
    boundary.resume(state["live"] if state is not None else None, start.schedule, start.pending)
    if state is not None:
        trainer.load_state_dict(state)
        _warn_of_resizing(saved_by(state), parts.ranks.world, report)
    else:
        trainer.probe(_first_window(parts))
    writer.start(position["row_bytes"])
    parts.ranks.confer()  # an order that is here already is met by the first window
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


def _newest_state(root: Path, report: Report, ranks: Ranks) -> dict[str, Any] | None:
    """What rank 0 finds is what all ranks load."""

    def set_aside(path: Path, reason: str) -> None:
        report(m.SetAside(path=str(path), reason=reason))

    found = checkpoint.newest(root, set_aside) if ranks.rank == 0 else None
    name = ranks.spread(found[0].name.encode() if found is not None else b"").decode()
    if ranks.rank and name:
        found = (root / name, checkpoint.verify(root / name))
    part = (ranks.rank, ranks.world) if ranks.is_sharded else None
    return None if found is None else checkpoint.load(*found, part)


def _warn_of_resizing(saved_by: int, world: int, report: Report) -> None:
    if saved_by != world:
        message = (
            f"the checkpoint was saved by {saved_by} processes, and this job has {world}: it goes on with the same samples "
            "in the same order, but not bit for bit: sums are taken in another order, and random draws are others"
        )
        report(m.Warned(topic="processes", message=message))


def files_of(directory: Path, report: Report, ranks: Ranks) -> Files:
    """The writer of a process that is alone; in a group rank 0's, which all ranks look at together."""
    if ranks.world == 1:
        return Writer(directory, report)
    peers = ranks.beside()
    if ranks.rank == 0:
        return SharedFiles(ranks, Writer(directory, report, peers))
    return SharedFiles(ranks, None, RowsWriter(directory, peers) if peers is not None else None)


def only_figures(report: Report) -> Report:
    """A report for ranks that do not speak: what happens is the same on all of them and told once, figures are not.

    Nor is what a rank leaves behind when it has to go.
    """

    def select(said: m.Report) -> None:
        is_left = isinstance(said, m.Applied) and isinstance(said.applied.action, m.Divide)
        if is_left or isinstance(said, m.Snapshot):
            report(said)

    return select


def _ready(trainer: Trainer, boundary: Boundary, window: int, *, resumed: bool) -> m.Ready:
    return m.Ready(
        window=window, total_windows=trainer.total_windows, resumed=resumed, revision=boundary.live.revision,
        windows_per_epoch=trainer.parts.workload.windows_per_epoch, config=trainer.config,
        capability=trainer.capability, choice=trainer.choice,
        parameters=sum(p.numel() for p in trainer.parts.model.parameters() if p.requires_grad), torch_version=str(torch.__version__),
        world=trainer.parts.ranks.world,
    )  # fmt: skip
