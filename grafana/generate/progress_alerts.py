"""Alerts about progress: does the job move, and would a crash cost more than it should?"""

from __future__ import annotations

from grafana.generate.alert import PROGRESS_GAP, RUNNING, Alert
from grafana.generate.pace import HOUR, MINUTE, Pace


def progress_alerts(pace: Pace) -> list[Alert]:
    """Stalls and checkpoints."""
    return [_stalled(pace), _checkpoint_stale()]


def _stalled(pace: Pace) -> Alert:
    limit, hour = pace.seconds(5 * MINUTE), pace.duration(HOUR)
    # 20 windows of the usual length, for jobs whose windows are slow; without any in the hour there is no excuse.
    usual = f"20 / (rate(ampd_windows_total[{hour}]) > 0)"
    return Alert(
        name="AmpdTrainingStalled",
        severity="critical",
        expr=f"{PROGRESS_GAP} > {limit}\nand {RUNNING}\n"
        f"and (time() - ampd_job_state_since_timestamp_seconds) > {limit}\n"
        f"unless {PROGRESS_GAP} <= {usual}\n",
        hold=2 * MINUTE,
        summary="Training stands still on {{ $labels.instance }}.",
        description="The job on {{ $labels.instance }} is running, but its last window ended "
        "{{ $value | humanizeDuration }} ago.",
        panel="Last window",
    )


def _checkpoint_stale() -> Alert:
    return Alert(
        name="AmpdCheckpointStale",
        severity="warning",
        expr=f"(ampd_window - ampd_last_checkpoint_window) > 3 * ampd_checkpoint_interval_windows\nand {RUNNING}\n",
        hold=5 * MINUTE,
        summary="Checkpoints are not being written on {{ $labels.instance }}.",
        description="A crash on {{ $labels.instance }} would now lose {{ $value | humanize }} windows, "
        "more than three checkpoint intervals.",
        panel="Windows at risk",
    )
