"""Alerts about progress: does the job move, and would a crash cost more than it should?"""

from __future__ import annotations

from grafana.generate.alert import GOODPUT, PROGRESS_GAP, RUNNING, WINDOWS, Alert
from grafana.generate.pace import HOUR, MINUTE, Pace


def progress_alerts(pace: Pace) -> list[Alert]:
    """Stalls, speed and checkpoints."""
    return [
        _stalled(pace), _slower(pace), _goodput_low(), _data_starved(pace), _checkpoint_stale(), _checkpoint_failing(pace),
    ]  # fmt: skip


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


def _slower(pace: Pace) -> Alert:
    hour, day_part = pace.duration(HOUR), pace.duration(6 * HOUR)
    usual = f"(avg_over_time({WINDOWS}[{day_part}]) and {WINDOWS} offset {hour})"
    return Alert(
        name="AmpdThroughputRegression",
        severity="warning",
        expr=f"{WINDOWS} < 0.7 * {usual}\nand {RUNNING}\n",
        hold=15 * MINUTE,
        summary="Training has become slower on {{ $labels.instance }}.",
        description="{{ $labels.instance }} does {{ $value | humanize }} windows a second, "
        f"less than 70 % of its mean over the last {day_part}.",
        panel="Windows",
    )


def _goodput_low() -> Alert:
    return Alert(
        name="AmpdGoodputLow",
        severity="warning",
        expr=f"{GOODPUT} < 0.8\n",
        hold=HOUR,
        summary="Much time goes to other things than training on {{ $labels.instance }}.",
        description="Of the time in which the job on {{ $labels.instance }} was meant to train, "
        "{{ $value | humanizePercentage }} went to training.",
        panel="Goodput",
        dashboard="ampd-performance",
    )


def _data_starved(pace: Pace) -> Alert:
    short = pace.duration(5 * MINUTE)

    def spent(activities: str) -> str:
        return f'sum without (activity) (rate(ampd_wall_seconds_total{{activity=~"{activities}"}}[{short}]))'

    return Alert(
        name="AmpdDataStarved",
        severity="info",
        expr=f"{spent('data')} / ({spent('data|train')} > 0) > 0.3\n",
        hold=15 * MINUTE,
        summary="Training waits for data on {{ $labels.instance }}.",
        description="{{ $value | humanizePercentage }} of the time of a window on {{ $labels.instance }} goes to waiting "
        "for its data.",
        panel="Time by activity",
    )


def _checkpoint_failing(pace: Pace) -> Alert:
    period = pace.duration(30 * MINUTE)
    return Alert(
        name="AmpdCheckpointFailing",
        severity="critical",
        expr=f"increase(ampd_checkpoint_failures_total[{period}]) >= 2\n"
        f'or increase(ampd_checkpoint_failures_total{{reason="stalled"}}[{period}]) > 0\n',
        summary="Checkpoints fail on {{ $labels.instance }}.",
        description='{{ $value | printf "%.0f" }} checkpoints on {{ $labels.instance }} could not be written within the last '
        f"{period}; the one before them stands.",
        panel="Checkpoints",
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
