"""The rows of `ampd plugins`: every entry point of ours, and what its spec says.

Installing a package never changes a run, so one that is broken must not break this list: it is a row with its error.
"""

from __future__ import annotations

import msgspec

from ampd.core.spec import StageSpec
from ampd.engine import registry
from ampd.errors import PluginError


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One installed plugin; `kind` is its slot, or "workload"."""

    name: str
    kind: str
    distribution: str
    version: str
    summary: str
    error: str = ""


def installed() -> list[Row]:
    """All stages by slot and name, then all workloads."""
    groups: tuple[registry.Group, ...] = ("ampd.stages", "ampd.workloads")
    return [_row(group, name) for group in groups for name in registry.installed(group)]


def table(rows: list[Row]) -> str:
    """The rows in aligned columns."""
    lines = [("NAME", "KIND", "FROM", "SUMMARY")]
    lines += [
        (row.name, row.kind, f"{row.distribution} {row.version}", row.error or row.summary) for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  ".join((*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]))
        for line in lines
    )


def _row(group: registry.Group, name: str) -> Row:
    point = registry.installed(group)[name]
    distribution, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
    origin = {"name": name, "distribution": distribution, "version": version}
    try:
        spec = registry.stage_spec(name) if group == "ampd.stages" else registry.workload_spec(name)
    except PluginError as error:
        return Row(kind="broken", summary="", error=str(error), **origin)
    kind = f"stage {spec.slot.name}" if isinstance(spec, StageSpec) else "workload"
    return Row(kind=kind, summary=spec.summary, **origin)
