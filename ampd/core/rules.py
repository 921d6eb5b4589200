"""What a configuration must keep beyond the bounds of each key: the rules that span keys, and those of all numbers.

A value that its key's type admits may still not go with another, or mean nothing. Each rule says which key is wrong, and
what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping
from typing import Any

from ampd.core import group, keys
from ampd.core.amp import AMPConfig
from ampd.core.config import BatchSection, HttpSection, JobConfig, JobSection
from ampd.core.group import DistributedSection
from ampd.errors import ConfigError

MOST = 2**53
"""Of whole numbers: the longest that every reader of JSON still takes for itself, and more windows than anybody trains."""


def check(config: JobConfig) -> None:
    """Check a whole configuration; raises ConfigError at the first rule that does not hold."""
    check_change(config, keys.table(), keys.sections().keys())


def check_change(config: JobConfig, paths: Iterable[str], sections: KeysView[str]) -> None:
    """The same where only these keys, of these sections, are others than in a configuration that was checked."""
    for path in paths:
        _check_number(path, keys.value_of(config, path))
    for rule, read in _RULES:
        if not sections.isdisjoint(read):
            rule(*(getattr(config, section) for section in read))


def _check_length(job: JobSection) -> None:
    if (job.windows is None) == (job.epochs is None):
        raise ConfigError(
            "[job] needs windows or epochs, and not both",
            field="job.windows",
            hint="for example: windows = 1000",
        )


def _check_scales(amp: AMPConfig) -> None:
    if amp.min_scale > amp.max_scale:
        raise ConfigError(
            f"amp.min_scale = {amp.min_scale:g} is above amp.max_scale = {amp.max_scale:g}",
            field="amp.min_scale",
            hint="the scale must have room between its floor and its ceiling",
        )


def _check_port(http: HttpSection) -> None:
    """What the form of an address cannot say; TCP for commands is looked at with its keys (`control.gate`)."""
    if int(http.listen.rpartition(":")[2]) >= 1 << 16:
        raise ConfigError(
            f"http.listen = {http.listen!r}: expected a port from 0 to 65535", field="http.listen", hint="0 takes a free one"
        )  # fmt: skip


def _check_processes(amp: AMPConfig, section: DistributedSection, batch: BatchSection) -> None:
    """Fields that mean something only between processes are refused while a job has one."""
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
    if isinstance(section.processes, int) and batch.size < section.processes * section.nodes:
        on_nodes = f" on each of {section.nodes} nodes" if section.nodes > 1 else ""
        raise ConfigError(
            f"batch.size = {batch.size} cannot be shared by distributed.processes = {section.processes}{on_nodes}",
            field="batch.size", hint="a micro-batch is shared by all processes: each needs at least one sample",
        )  # fmt: skip


def _check_number(path: str, value: Any) -> None:
    """No number may be inf, nor a whole one longer than 64 bits: TOML can write both, where a key has no upper bound.

    What has more bits cannot be sent to a worker, and numbers of windows are added to.
    """
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


_RULES: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = (
    (_check_length, ("job",)),
    (_check_scales, ("amp",)),
    (_check_port, ("http",)),
    (group.check, ("distributed",)),
    (_check_processes, ("amp", "distributed", "batch")),
)
"""Each with the sections that it reads, which is all that it is given."""
