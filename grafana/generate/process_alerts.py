"""Alerts about processes: the daemon, its worker, and what they say.

A daemon is watched from two sides. AmpdDown is a target that Prometheus has and cannot scrape; AmpdAbsent is one that it
had and has no more, because whatever lists the targets (file_sd, `ampctl list --file-sd`) lists only daemons that live.
"""

from __future__ import annotations

from ampd.core.phase import LONG
from grafana.generate.alert import Alert
from grafana.generate.pace import DAY, HOUR, MINUTE, Pace

_UP = 'up{job=~"ampd.*"} == 0'


def process_alerts(pace: Pace) -> list[Alert]:
    """Daemons, workers, and what they could not do."""
    return [
        _failed(), _down(pace), _absent(pace), _silent(pace), _missing(), _crash_looping(pace), _reload_failed(pace),
        _dropping(pace),
    ]  # fmt: skip


def _ended_well(pace: Pace) -> str:
    day = pace.duration(DAY)
    return f'sum without (state) (last_over_time(ampd_job_state{{state=~"completed|stopped"}}[{day}])) > 0'


def _failed() -> Alert:
    return Alert(
        name="AmpdJobFailed",
        severity="critical",
        expr='ampd_job_state{state="failed"} == 1\n',
        summary="The job on {{ $labels.instance }} has failed.",
        description="The job on {{ $labels.instance }} has failed and will not be started again by itself.",
        panel="State",
    )


def _down(pace: Pace) -> Alert:
    return Alert(
        name="AmpdDown",
        severity="critical",
        expr=f"{_UP}\nunless {_ended_well(pace)}\n",
        hold=2 * MINUTE,
        summary="No daemon answers on {{ $labels.instance }}.",
        description="Prometheus cannot scrape {{ $labels.instance }}, and the job there had not ended "
        "when it was last seen.",
        panel="State",
    )


def _absent(pace: Pace) -> Alert:
    day = pace.duration(DAY)
    return Alert(
        name="AmpdAbsent",
        severity="warning",
        expr=f"last_over_time(ampd_job_start_timestamp_seconds[{day}])\n"
        f"unless ampd_job_start_timestamp_seconds\nunless {_UP}\nunless {_ended_well(pace)}\n",
        hold=10 * MINUTE,
        summary="A job is gone from the targets: {{ $labels.instance }}.",
        description="The daemon on {{ $labels.instance }}, started at {{ $value | humanizeTimestamp }}, is no longer scraped, "
        "and its job had not ended when it was last seen.",
        panel="State",
    )


def _silent(pace: Pace) -> Alert:
    hour = pace.duration(HOUR)
    silence = "(time() - min without (rank) (ampd_worker_heartbeat_timestamp_seconds))"
    # A loop speaks between its windows: the silence of one slow window is none.
    usual = f"20 / (rate(ampd_windows_total[{hour}]) > 0)"
    # What takes long by nature is declared, and bounded by [watchdog].
    long = f'sum without (phase) (ampd_worker_phase{{phase=~"{"|".join(LONG)}"}}) == 1'
    has_worker = 'sum without (state) (ampd_job_state{state=~"running|paused"}) == 1'
    return Alert(
        name="AmpdWorkerSilent",
        severity="critical",
        expr=f"{silence} > {pace.seconds(MINUTE)}\nand {has_worker}\nunless {silence} <= {usual}\nunless {long}\n",
        hold=MINUTE,
        summary="The worker of {{ $labels.instance }} says nothing.",
        description="A rank of {{ $labels.instance }} was last heard {{ $value | humanizeDuration }} ago, "
        "and its process has not ended.",
        panel="State over time",
    )


def _missing() -> Alert:
    return Alert(
        name="AmpdWorkerMissing",
        severity="warning",
        expr='sum without (state) (ampd_job_state{state=~"starting|recovering"}) == 1\n',
        hold=10 * MINUTE,
        summary="No worker trains on {{ $labels.instance }}.",
        description="The job on {{ $labels.instance }} has been starting or recovering for a while: its worker does not "
        "come up, or waits to be started again.",
        panel="State over time",
    )


def _crash_looping(pace: Pace) -> Alert:
    period = pace.duration(30 * MINUTE)
    return Alert(
        name="AmpdWorkerCrashLooping",
        severity="critical",
        expr=f'sum without (reason) (increase(ampd_worker_restarts_total{{reason!="rolled_back"}}[{period}])) >= 3\n',
        summary="The worker of {{ $labels.instance }} ends again and again.",
        description='The worker of {{ $labels.instance }} was started again {{ $value | printf "%.0f" }} times within the last '
        f"{period}.",
        panel="Restarts, changes and refusals",
    )


def _reload_failed(pace: Pace) -> Alert:
    long = pace.duration(10 * MINUTE)
    return Alert(
        name="AmpdConfigReloadFailed",
        severity="warning",
        expr=f"increase(ampd_config_reload_failures_total[{long}]) > 0\n",
        summary="A job file was not taken over on {{ $labels.instance }}.",
        description='The job file of {{ $labels.instance }} was read again {{ $value | printf "%.0f" }} times within the last '
        f"{long} and refused; what held before still holds.",
        panel="Restarts, changes and refusals",
    )


def _dropping(pace: Pace) -> Alert:
    short = pace.duration(5 * MINUTE)
    return Alert(
        name="AmpdTelemetryDropping",
        severity="warning",
        expr=f"increase(ampd_events_lost_total[{short}]) > 0\n"
        "or sum without (reason) (ampd_telemetry_readings_left_out) > 0\n",
        hold=10 * MINUTE,
        summary="{{ $labels.instance }} does not tell everything.",
        description='{{ $value | printf "%.0f" }} events or readings of {{ $labels.instance }} were left out: '
        "what you see is not all there is.",
        panel="Readings left out",
        dashboard="ampd-fleet",
    )
