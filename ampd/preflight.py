"""Everything about a job file that can be known without a device, before anything is started or written.

`core.change` validates keys; here what they name is looked at: plugins and their options, the slots of the
pipeline, the length of the socket path. No torch is loaded: a spec describes, and is built in the worker only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ampd.control import endpoints, gate
from ampd.core import change
from ampd.core.config import JobConfig
from ampd.core.group import DistributedSection
from ampd.core.spec import Slot, StageSpec, WorkloadSpec
from ampd.engine import registry
from ampd.errors import ConfigError


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A job that can be started: its configuration, and the plugins that it names."""

    config: JobConfig
    workload: WorkloadSpec
    stages: tuple[tuple[str, StageSpec], ...]


def read(path: Path, overrides: Mapping[str, str] = {}) -> JobConfig:  # never changed
    """The configuration in a job file, with the words of `--set` in place; raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
    except OSError as error:
        raise ConfigError(
            f"cannot read the job file {path}: {error.strerror}",
            hint="give the path of a job file: --config JOB.toml",
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the job file {path} is not text in UTF-8: {error.reason} at byte {error.start}"
        ) from None
    config = change.read_job(text, where=str(path))
    return change.override(config, change.parse(overrides, where="--set")) if overrides else config


def plan(config: JobConfig) -> Plan:
    """Look at everything that the configuration names; raises ConfigError or PluginError at the first that is wrong."""
    stages = _stages(config)
    workload = registry.workload_spec(config.workload.name)
    options = registry.options_of(workload, config.workload.options, "workload.options")
    registry.check(workload, options)
    runtime = endpoints.runtime_directory(config.job.name)
    for name in (endpoints.CONTROL, endpoints.EVENTS, endpoints.LINK):
        endpoints.socket_path(runtime, name)
    gate.read(config.control.listen)
    return Plan(config=config, workload=workload, stages=stages)


def facts(job: Plan) -> list[tuple[str, str]]:
    """What would be run, one fact a line."""
    config = job.config
    length = (
        f"{config.job.windows} windows" if config.job.windows is not None else f"{config.job.epochs} epochs"
    )
    ordered = sorted(job.stages, key=lambda stage: stage[1].slot)
    return [
        ("job", f"{config.job.name}, {length}, seed {config.job.seed}"),
        ("directory", config.job.directory),
        ("workload", f"{config.workload.name}: {job.workload.summary}"),
        ("pipeline", " > ".join(f"{name} ({spec.slot.name})" for name, spec in ordered)),
        ("batch", f"{config.batch.accumulate} x {config.batch.size} samples in a window"),
        ("precision", config.amp.dtype if config.amp.enabled else "float32 (amp.enabled is false)"),
        ("optimizer", f"{config.optim.name}, lr {config.optim.lr:g}, {config.optim.schedule}"),
        ("device", config.device.type),
        *_node_facts(config.distributed),
        ("checkpoints", f"every {config.checkpoint.every_windows} windows, {config.checkpoint.keep} kept"),
        ("metrics", f"http://{config.http.listen}/metrics"),
        ("sockets", str(endpoints.runtime_directory(config.job.name))),
        *_remote_facts(config),
    ]


def _node_facts(section: DistributedSection) -> list[tuple[str, str]]:
    met = f"{section.nodes}, which meet at {section.rendezvous}, with {section.processes} processes on each"
    return [("nodes", met)] if section.nodes > 1 else []


def _remote_facts(config: JobConfig) -> list[tuple[str, str]]:
    remote = gate.read(config.control.listen)
    if remote is None:
        return []
    return [("remote", f"{remote.where.address}, events on the next port, for {', '.join(remote.names)}")]


def _stages(config: JobConfig) -> tuple[tuple[str, StageSpec], ...]:
    names, options = config.pipeline.stages, config.pipeline.options
    for name in options:
        if name not in names:
            raise ConfigError(
                f"pipeline.options.{name}: no stage of that name is in pipeline.stages",
                field=f"pipeline.options.{name}", hint=f"stages: {', '.join(names)}",
            )  # fmt: skip
    stages = tuple((name, registry.stage_spec(name)) for name in names)
    check_slots(stages)
    for name, spec in stages:
        registry.options_of(spec, options.get(name, {}), f"pipeline.options.{name}")
    return stages


def check_slots(stages: tuple[tuple[str, StageSpec], ...]) -> None:
    """The law of the slots, by name: what `compose` would find in the worker."""
    names = [name for name, _spec in stages]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"pipeline.stages names {', '.join(twice)} more than once",
            field="pipeline.stages",
            hint="name each once",
        )
    for slot in Slot:
        found = [name for name, spec in stages if spec.slot is slot]
        if slot.is_single and len(found) != 1:
            raise ConfigError(
                f"pipeline.stages: slot {slot.name} takes exactly one stage, and has {' and '.join(found) or 'none'}",
                field="pipeline.stages", hint="`ampd plugins` shows the slot of each stage",
            )  # fmt: skip
