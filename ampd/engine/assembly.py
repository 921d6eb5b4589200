"""From a configuration to the parts that train: workload, model, optimizer, stages, composed.

The order matters and stands here once: seed, build the model on the host (the same on every rank, whose generators
part after that), move it, the optimizer over the moved parameters; then what a model and an optimizer need, whoever made them (`outfit`): flat buffers (`Rewind`), stages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn, optim

from ampd.core.activity import Sampled
from ampd.core.config import JobConfig
from ampd.core.ledger import Ledger
from ampd.core.messages import Report
from ampd.core.spec import Slot
from ampd.engine import registry
from ampd.engine.breakdown import Breakdown, clock_of
from ampd.engine.execute import Execute
from ampd.engine.inject import FaultyWorkload, Injector
from ampd.engine.memory import Shortages
from ampd.engine.optim import build_optimizer
from ampd.engine.pipeline import Proceed, Stage, compose, required_stage
from ampd.engine.ranks import Alone, Ranks
from ampd.engine.rewind import Rewind
from ampd.engine.stages.context import StageContext
from ampd.engine.workload import Workload, WorkloadContext, required
from ampd.errors import ConfigError

_RANK_STRIDE = 1_000_003  # a prime: seeds of neighbouring jobs and ranks do not meet


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a trainer drives; made by `assemble`, changed by nobody."""

    workload: Workload
    parameters: Sequence[nn.Parameter]
    optimizer: optim.Optimizer
    device: torch.device
    rewind: Rewind
    injector: Injector
    ledger: Ledger
    stages: Sequence[tuple[str, Slot, Stage]]
    execute: Execute
    pipeline: Proceed
    ranks: Ranks
    breakdown: Breakdown
    shortages: Shortages

    @property
    def model(self) -> nn.Module:
        """The workload's model, on the device."""
        return self.workload.model


def assemble(
    config: JobConfig, device: torch.device, emit: Callable[[Report], None], ranks: Ranks | None = None
) -> Parts:
    """Build everything that a job file names; raises ConfigError, PluginError or PipelineError."""
    spec = registry.workload_spec(config.workload.name)
    options = registry.options_of(spec, config.workload.options, "workload.options")
    _seed(config.job.seed)
    workload = required(
        registry.build(spec, options, WorkloadContext(config=config, device=device)), spec.build
    )
    ranks = ranks or Alone()
    if ranks.rank:
        _seed(config.job.seed + _RANK_STRIDE * ranks.rank)
    return equip(config, workload, device, emit, host_rng=spec.host_rng, ranks=ranks)


def equip(
    config: JobConfig,
    workload: Workload,
    device: torch.device,
    emit: Callable[[Report], None],
    *,
    host_rng: bool = False,
    ranks: Ranks | None = None,
) -> Parts:
    """Give a workload what it needs to be trained: the device, training mode, an optimizer, all the rest."""
    if config.amp.sync_batch_norm:
        workload.model = _with_shared_statistics(workload.model, device)
    ranks = ranks or Alone()
    parameters = ranks.place(workload, device)
    return outfit(
        config, workload, device, emit, optimizer=build_optimizer(config.optim, parameters),
        parameters=parameters, ledger=Ledger(), host_rng=host_rng, ranks=ranks,
    )  # fmt: skip


def outfit(
    config: JobConfig,
    workload: Workload,
    device: torch.device,
    emit: Callable[[Report], None],
    *,
    optimizer: optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    ledger: Ledger,
    host_rng: bool = False,
    ranks: Ranks | None = None,
    sampled: Sampled | None = None,
) -> Parts:
    """The parts around a model that is on its device and an optimizer over `parameters`; touches no mode, moves nothing."""
    ranks = ranks or Alone()
    injector = Injector(ranks)
    rewind = Rewind(workload.model, device, workload, host_rng=host_rng)
    shortages = Shortages()
    context = StageContext(
        config=config,
        model=workload.model,
        parameters=parameters,
        device=device,
        rewind=rewind,
        ledger=ledger,
        emit=emit,
        ranks=ranks,
        shortages=shortages,
    )
    stages = build_stages(config, context)
    runs = FaultyWorkload(workload, injector) if config.inject.allowed else workload
    joined = ranks.join(runs, workload.model, accumulate=config.amp.enable_distributed_accumulation)
    breakdown = Breakdown(clock_of(device), sampled)
    execute = Execute(joined, parameters, device, ranks, breakdown, rewind.strays)
    return Parts(
        workload=workload, parameters=parameters, optimizer=optimizer, device=device,
        rewind=rewind, injector=injector, ledger=ledger, stages=stages,
        execute=execute, pipeline=compose(stages, execute), ranks=ranks, breakdown=breakdown, shortages=shortages,
    )  # fmt: skip


def build_stages(config: JobConfig, context: StageContext) -> list[tuple[str, Slot, Stage]]:
    """The stages that `[pipeline] stages` names, each built with its own options."""
    stages = []
    for name in config.pipeline.stages:
        spec = registry.stage_spec(name)
        options = registry.options_of(spec, config.pipeline.options.get(name, {}), f"pipeline.options.{name}")
        stages.append((name, spec.slot, required_stage(registry.build(spec, options, context), name)))
    return stages


def _with_shared_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """SyncBatchNorm in the place of BatchNorm; raises ConfigError on the CPU, where torch has none."""
    if device.type != "cuda":
        raise ConfigError(
            "amp.sync_batch_norm = true: torch synchronises BatchNorm on CUDA only, and the job runs on the CPU",
            field="amp.sync_batch_norm", hint="leave it out: running statistics are those of rank 0",
        )  # fmt: skip
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch's
    return converted


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
