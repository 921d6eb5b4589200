"""The figures as Markdown: medians and quartiles over rounds, with what is needed to know what they are worth."""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tests.bench.daemons import Turns

REFERENCE = "by hand"


def race_rows(task: str, dtype: str, turns: Turns) -> list[list[str]]:
    """A row for each contestant: its step, and its ratio to the hand-written loop of the same round."""
    rows = []
    for name, own in turns.items():
        wall, cpu = (ratios(own, turns[REFERENCE], clock) for clock in (0, 1))
        step = f"{1000 * statistics.median(turn[0] for turn in own):.2f}"
        rows.append([task, dtype, name, step, spread(wall), spread(cpu), str(len(own))])
    return rows


RACE_HEADER = [
    "model", "dtype", "loop", "ms a step", "of the hand-written loop", "the same in processor time", "rounds",
]  # fmt: skip


def ratios(
    own: Sequence[tuple[float, float]], reference: Sequence[tuple[float, float]], clock: int
) -> list[float]:
    """Own time by the reference's, round by round."""
    return [ours[clock] / theirs[clock] for ours, theirs in zip(own, reference, strict=True)]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median, its standard error (from the quartiles, as for normal noise), [first quartile, third quartile]."""
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    error = 0.93 * (third - first) / math.sqrt(len(values))
    return f"{median:.{digits}f} ± {error:.{digits}f} [{first:.{digits}f}, {third:.{digits}f}]"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def circumstances(
    command: str,
    load_before: float,
    packages: Sequence[str] = ("torch", "lightning-fabric", "accelerate"),
    how: str = "one torch thread, pinned to a core",
) -> str:
    """When, on what and how these figures came about."""
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    load_after = os.getloadavg()[0]
    return "\n".join(
        (
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{command}`",
            f"- {processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}",
            f"- load average {load_before:.1f} before, {load_after:.1f} after; {how}",
        )
    )


def processor() -> str:
    """The processor's name."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"
