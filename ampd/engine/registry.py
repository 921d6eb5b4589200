"""Plugins by name, on demand: only what a job file names is ever loaded, so installing a package changes no run.

An entry point in `ampd.stages` or `ampd.workloads` names a spec, which loads no torch; `load` resolves the spec's own
reference later, in the worker. Built-in stages come in through the same door.

A plugin's code may fail in any way. What fails before it has built anything is an error of the plugin, told with where
it comes from and the line of its code, and not a crash: to start the worker again would help nobody.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import traceback
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import msgspec

from ampd.core import mistakes
from ampd.core.keys import did_you_mean
from ampd.core.spec import StageSpec, WorkloadSpec
from ampd.errors import AmpdError, ConfigError, PluginError

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
        raise mistakes.of_options(error, given, spec.options, where) from None


def check(spec: WorkloadSpec, options: Any) -> None:
    """Let a workload look at its own options, where it wants to; raises ConfigError, or PluginError where that fails."""
    if spec.check:
        look = load(spec.check)
        with _blamed(f"plugin reference {spec.check!r} failed"):
            look(options)


def build(spec: StageSpec | WorkloadSpec, options: Any, context: object) -> Any:
    """What a spec's `build` makes; raises PluginError where it cannot be had, or does not take options and context."""
    make = load(spec.build)
    if not callable(make):
        raise PluginError(
            f"plugin reference {spec.build!r} is of type {type(make).__name__}, expected a function of "
            "(options, context); fix the plugin"
        )
    taken = inspect.signature(make)
    try:
        taken.bind(options, context)
    except TypeError:
        raise PluginError(
            f"plugin reference {spec.build!r} takes {taken}, expected (options, context); fix the plugin"
        ) from None
    return make(options, context)


def load(reference: str) -> Any:
    """The object that "package.module:attribute" names; raises PluginError where it cannot be had."""
    module, _, attribute = reference.partition(":")
    with _blamed(f"plugin reference {reference!r} cannot be loaded"):
        return getattr(importlib.import_module(module), attribute)


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
    with _blamed(f"{origin} cannot be loaded"):
        spec = point.load()
    if not isinstance(spec, _SPEC_OF[group]):
        raise PluginError(
            f"{origin} is of type {type(spec).__name__}, expected {_SPEC_OF[group].__name__}; fix the plugin's entry point"
        )
    return spec


@contextlib.contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Raise PluginError for whatever a plugin's code raises, save what it says of its options in our own words."""
    try:
        yield
    except AmpdError:
        raise
    except Exception as error:
        where = _place_of(error)
        raise PluginError(
            f"{what}: {type(error).__name__}: {error}{where}; reinstall or fix the plugin"
        ) from error


def _place_of(error: Exception) -> str:
    """The line that raised it; nothing where only the machinery of imports was at work."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
