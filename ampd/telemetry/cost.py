"""What a daemon costs, so that whoever pays for it can see the price: its time, its memory, its pages and its log.

Taken when a page is built and never between: a figure that nobody reads must cost nothing. Memory is what is resident now,
where getrusage would only tell the highest that it ever was.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from ampd.telemetry import log_lines
from ampd.telemetry.log_lines import Lines
from ampd.telemetry.readings import Readings

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a daemon has cost so far; the seconds of `build` and `serve` are part of those of `cpu`."""

    scrapes: int = 0
    build_seconds: float = 0.0
    serve_seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    lines: Lines = field(default_factory=Lines)

    def now(self) -> Self:
        """The same with what this process has used by now."""
        resident = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return replace(self, cpu_seconds=time.process_time(), memory_bytes=resident, lines=log_lines.lines())

    def readings(self) -> Readings:
        """By family of the table."""
        return {
            "ampd_scrapes_total": self.scrapes,
            "ampd_telemetry_seconds_total": {"build": self.build_seconds, "serve": self.serve_seconds},
            "ampd_daemon_cpu_seconds_total": self.cpu_seconds,
            "ampd_daemon_memory_bytes": self.memory_bytes,
            "ampd_log_lines_total": self.lines.written,
            "ampd_log_lines_left_out_total": self.lines.left_out,
        }
