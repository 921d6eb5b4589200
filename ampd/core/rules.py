"""What a configuration must keep beyond the bounds of each key: the rules that span keys, and those of all numbers.

A value that its key's type admits may still not go with another, or mean nothing. Each rule says which key is wrong, and
what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ampd.core import group, keys
from ampd.core.amp import AMPConfig
from ampd.core.config import JobConfig
from ampd.errors import ConfigError

MOST = 2**53
"""Of whole numbers: the longest that every reader of JSON still takes for itself, and more windows than anybody trains."""


def check(config: JobConfig) -> None:
    """The rules that span keys; raises ConfigError at the first that does not hold."""
    if (config.job.windows is None) == (config.job.epochs is None):
        raise ConfigError(
            "[job] needs windows or epochs, and not both",
            field="job.windows",
            hint="for example: windows = 1000",
        )
    _check_scales(config.amp)
    _check_numbers(config)
    group.check(config.distributed)
    _check_processes(config)


def _check_scales(amp: AMPConfig) -> None:
    if amp.min_scale > amp.max_scale:
        raise ConfigError(
            f"amp.min_scale = {amp.min_scale:g} is above amp.max_scale = {amp.max_scale:g}",
            field="amp.min_scale",
            hint="the scale must have room between its floor and its ceiling",
        )


def _check_processes(config: JobConfig) -> None:
    """Fields that mean something only between processes are refused while a job has one."""
    amp, section = config.amp, config.distributed
    if not amp.sync_across_gpus:
        raise ConfigError(
            "amp.sync_across_gpus = false would let processes judge the same window differently",
            field="amp.sync_across_gpus", hint="leave it out; in one process it costs nothing",
        )  # fmt: skip
    if not section.is_group and amp.sync_batch_norm:
        raise ConfigError(
            "amp.sync_batch_norm = true needs more than one process, and a job has one", field="amp.sync_batch_norm",
            hint="leave it out: BatchNorm of one process is synchronous already; or set distributed.processes",
        )  # fmt: skip
    if not section.is_group and not amp.enable_distributed_accumulation:
        raise ConfigError(
            "amp.enable_distributed_accumulation = false needs more than one process, and a job has one",
            field="amp.enable_distributed_accumulation", hint="leave it out, or set distributed.processes",
        )  # fmt: skip
    if not section.is_group and section.strategy == "fsdp2":
        raise ConfigError(
            'distributed.strategy = "fsdp2" needs more than one process to share the weights, and the job has one',
            field="distributed.strategy", hint="leave it out: one process holds them all; or set distributed.processes",
        )  # fmt: skip
    if section.processes == "env" and amp.on_bad_window == "rollback":
        raise ConfigError(
            'amp.on_bad_window = "rollback" starts all processes again, which distributed.processes = "env" leaves to others',
            field="amp.on_bad_window", hint="take skip, quarantine, pause or abort; or have ampd start the processes",
        )  # fmt: skip
    if isinstance(section.processes, int) and config.batch.size < section.processes * section.nodes:
        on_nodes = f" on each of {section.nodes} nodes" if section.nodes > 1 else ""
        raise ConfigError(
            f"batch.size = {config.batch.size} cannot be shared by distributed.processes = {section.processes}{on_nodes}",
            field="batch.size", hint="a micro-batch is shared by all processes: each needs at least one sample",
        )  # fmt: skip


def _check_numbers(config: JobConfig) -> None:
    """No number may be inf, nor a whole one longer than 64 bits: TOML can write both, where a key has no upper bound.

    What has more bits cannot be sent to a worker, and numbers of windows are added to.
    """
    for path, value in zip(keys.table(), keys.values(config), strict=True):
        for number in _numbers_in(value):
            if number == math.inf and not isinstance(value, Mapping):
                raise _unbounded(path, number, "a finite number")
            if isinstance(number, int) and abs(number) > MOST:
                raise _unbounded(path, number, f"a whole number of at most {MOST}")


def _numbers_in(value: Any) -> Iterator[int | float]:
    """Those of a value, and of a plugin's tables and lists within it."""
    match value:
        case int() | float():
            yield value
        case Mapping():
            for each in value.values():
                yield from _numbers_in(each)
        case list() | tuple():
            for each in value:
                yield from _numbers_in(each)


def _unbounded(path: str, number: float, expected: str) -> ConfigError:
    hint = "leave the key out where no limit is meant"
    return ConfigError(f"{path} = {number}: expected {expected}", field=path, hint=hint)
