"""What an alert and a recording rule are, and the expressions that several of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "critical"]

FALLBACKS = "instance:ampd_fp32_fallbacks:ratio5m"
LOST = "instance:ampd_windows_lost:ratio10m"
LOST_COUNT = "instance:ampd_windows_lost:increase10m"
RUNNING = 'ignoring (state) ampd_job_state{state="running"} == 1'
WINDOWS = "instance:ampd_windows:rate5m"
GOODPUT = "instance:ampd_goodput:ratio1h"
PROGRESS_GAP = "(time() - ampd_last_progress_timestamp_seconds)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A recording rule, named level:metric:operations."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert; `hold` is how long its condition must last, `keep` how long it goes on after it. Seconds."""

    name: str
    severity: Severity
    expr: str
    summary: str
    description: str
    panel: str
    dashboard: str = "ampd-overview"
    hold: float = 0.0
    keep: float = 0.0
