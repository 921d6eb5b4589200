"""From a configuration to the parts that train: workload, model, optimizer, stages, composed.

The order matters and stands here once: seed, build the model on the host, move it, the optimizer over the moved
parameters; then what a model and an optimizer need, whoever made them (`outfit`): flat buffers (`Rewind`), stages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn, optim

from ampd.core.config import JobConfig
from ampd.core.ledger import Ledger
from ampd.core.messages import Report
from ampd.core.spec import Slot
from ampd.engine import registry
from ampd.engine.execute import Execute
from ampd.engine.inject import FaultyWorkload, Injector
from ampd.engine.optim import build_optimizer
from ampd.engine.pipeline import Proceed, Stage, compose
from ampd.engine.rewind import Rewind
from ampd.engine.stages.context import StageContext
from ampd.engine.workload import Workload, WorkloadContext


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

    @property
    def model(self) -> nn.Module:
        """The workload's model, on the device."""
        return self.workload.model


def assemble(config: JobConfig, device: torch.device, emit: Callable[[Report], None]) -> Parts:
    """Build everything that a job file names; raises ConfigError, PluginError or PipelineError."""
    spec = registry.workload_spec(config.workload.name)
    options = registry.options_of(spec, config.workload.options, "workload.options")
    _seed(config.job.seed)
    workload: Workload = registry.load(spec.build)(options, WorkloadContext(config=config, device=device))
    return equip(config, workload, device, emit, host_rng=spec.host_rng)


def equip(
    config: JobConfig,
    workload: Workload,
    device: torch.device,
    emit: Callable[[Report], None],
    *,
    host_rng: bool = False,
) -> Parts:
    """Give a workload what it needs to be trained: the device, training mode, an optimizer, all the rest."""
    model = workload.model.to(device).train()
    return outfit(
        config, workload, device, emit, optimizer=build_optimizer(config.optim, model),
        parameters=[p for p in model.parameters() if p.requires_grad], ledger=Ledger(), host_rng=host_rng,
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
) -> Parts:
    """The parts around a model that is on its device and an optimizer over `parameters`; touches no mode, moves nothing."""
    injector = Injector()
    rewind = Rewind(workload.model, device, workload, host_rng=host_rng)
    context = StageContext(
        config=config,
        model=workload.model,
        parameters=parameters,
        device=device,
        rewind=rewind,
        ledger=ledger,
        emit=emit,
    )
    stages = build_stages(config, context)
    runs = FaultyWorkload(workload, injector) if config.inject.allowed else workload
    execute = Execute(runs, parameters, device)
    return Parts(
        workload=workload, parameters=parameters, optimizer=optimizer, device=device,
        rewind=rewind, injector=injector, ledger=ledger, stages=stages,
        execute=execute, pipeline=compose(stages, execute),
    )  # fmt: skip


def build_stages(config: JobConfig, context: StageContext) -> list[tuple[str, Slot, Stage]]:
    """The stages that `[pipeline] stages` names, each built with its own options."""
    stages = []
    for name in config.pipeline.stages:
        spec = registry.stage_spec(name)
        options = registry.options_of(spec, config.pipeline.options.get(name, {}), f"pipeline.options.{name}")
        stages.append((name, spec.slot, registry.load(spec.build)(options, context)))
    return stages


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
