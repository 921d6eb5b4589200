"""Plugins by name, on demand: only what a job file names is ever loaded, so installing a package changes no run.

An entry point in `ampd.stages` or `ampd.workloads` names a spec, which loads no torch; `load` resolves the spec's own
reference later, in the worker. Built-in stages come in through the same door.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import msgspec

from ampd.core.keys import did_you_mean
from ampd.core.spec import StageSpec, WorkloadSpec
from ampd.errors import ConfigError, PluginError

Group = Literal["ampd.stages", "ampd.workloads"]
_SPEC_OF: Mapping[str, type[StageSpec | WorkloadSpec]] = {
    "ampd.stages": StageSpec,
    "ampd.workloads": WorkloadSpec,
}


def installed(group: Group) -> dict[str, EntryPoint]:
    """Every entry point of a group by name."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


def stage_spec(name: str) -> StageSpec:
    """The spec of the stage `name`; raises PluginError with what is installed."""
    spec = _spec("ampd.stages", name)
    assert isinstance(spec, StageSpec)
    return spec


def workload_spec(name: str) -> WorkloadSpec:
    """The spec of the workload `name`; raises PluginError with what is installed."""
    spec = _spec("ampd.workloads", name)
    assert isinstance(spec, WorkloadSpec)
    return spec


def options_of(spec: StageSpec | WorkloadSpec, given: Mapping[str, Any], where: str) -> Any:
    """The plugin's validated options; `where` is their table in the job file, for errors."""
    known = spec.options.__struct_fields__
    for key in given:
        if key not in known:
            listed = ", ".join(known) or "it has no options"
            raise ConfigError(
                f"{where}.{key} is not an option{did_you_mean(key, known)}",
                field=f"{where}.{key}",
                hint=f"known: {listed}",
            )
    try:
        return msgspec.convert(given, spec.options)
    except msgspec.ValidationError as error:
        raise ConfigError(f"[{where}] {error}", field=where, hint="see the plugin's README") from None


def load(reference: str) -> Any:
    """The object that "package.module:attribute" names; raises PluginError where it cannot be had."""
    module, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"plugin reference {reference!r} cannot be loaded: {error}; reinstall the plugin's distribution"
        ) from error


def _spec(group: Group, name: str) -> StageSpec | WorkloadSpec:
    points = installed(group)
    kind = group.removeprefix("ampd.").removesuffix("s")
    if name not in points:
        listed = ", ".join(points) or "none"
        raise PluginError(
            f"{kind} {name!r} is not installed{did_you_mean(name, points)}; installed: {listed}; `ampd plugins` shows them"
        )
    point = points[name]
    origin = f"{kind} {name!r} ({point.value}, from {_distribution(point)})"
    try:
        spec = point.load()
    except Exception as error:  # a plugin's module may fail in any way; reported with its origin
        raise PluginError(f"{origin} cannot be loaded: {error}; reinstall or fix the plugin") from error
    if not isinstance(spec, _SPEC_OF[group]):
        raise PluginError(
            f"{origin} is a {type(spec).__name__}, expected a {_SPEC_OF[group].__name__}; fix the plugin's entry point"
        )
    return spec


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
