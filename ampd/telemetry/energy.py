"""What the processors of this machine took: the kernel's own counters (powercap), one for each package.

They count microjoules and begin again at 0 when they are full, which takes a package at 200 W from five minutes to an hour. So
they are read with every page that is built, and what a page that nobody asked for in such a time would have counted is lost.
Most kernels let only root read them, since what a processor takes tells what it computes: then there is nothing to show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ampd.telemetry.readings import Readings

POWERCAP = Path("/sys/class/powercap")
_ZONE = re.compile(
    r"intel-rapl:\d+"
)  # AMD's too; those inside a package have one number more, and are part of it


class Energy:
    """Joules by package since they were first looked at; for one thread."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._root = root
        self._last: dict[str, int] = {}
        self._joules: dict[str, float] = {}

    def readings(self) -> Readings:
        """By family of the table; what may not be read has no series."""
        for package, zone in _packages(self._root):
            with suppress(OSError):
                self._add(package, _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj"))
        return {"ampd_processor_energy_joules_total": dict(self._joules)}

    def _add(self, package: str, now: int, most: int) -> None:
        before = self._last.get(package, now)
        spent = now - before if now >= before else now - before + most
        self._joules[package] = self._joules.get(package, 0.0) + spent / 1e6
        self._last[package] = now


def _packages(root: Path) -> Iterator[tuple[str, Path]]:
    """The number of each package, and its directory."""
    with suppress(OSError):
        for zone in sorted(root.iterdir()):
            name = (zone / "name").read_text().strip() if _ZONE.fullmatch(zone.name) else ""
            if name.startswith("package-"):
                yield name.removeprefix("package-"), zone


def _number(file: Path) -> int:
    return int(file.read_text())
