"""Recording rules and alerts, as data.

An alert is about what a person must know or do: precision that costs time or loses windows, a job that stands
still, a job that is gone. Ratios are in windows; each divides after it has aggregated and guards its divisor.
One bad window of a slow job must not wake anybody: a fallback is seen for five minutes and must last as long,
and of lost windows there must be two. All counters are on the page at 0 from the first scrape, so `increase`
sees the first fallback of a young job too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from grafana.generate.pace import DAY, HOUR, MINUTE, Pace

Severity = Literal["info", "warning", "critical"]

INTERVAL = 15.0
"""Seconds between two evaluations of a group."""

_FALLBACKS = "instance:ampd_fp32_fallbacks:ratio5m"
_LOST = "instance:ampd_windows_lost:ratio10m"
_LOST_COUNT = "instance:ampd_windows_lost:increase10m"
_RUNNING = 'ignoring (state) ampd_job_state{state="running"} == 1'
_PROGRESS_GAP = "(time() - ampd_last_progress_timestamp_seconds)"


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
    hold: float = 0.0
    keep: float = 0.0


def records(pace: Pace) -> list[Record]:
    """What several alerts and panels need, computed once."""
    short, long = pace.duration(5 * MINUTE), pace.duration(10 * MINUTE)
    skipped = f"sum without (cause) (increase(ampd_windows_skipped_total[{long}]))"
    fallbacks = f"sum without (cause) (increase(ampd_fp32_fallbacks_total[{short}]))"
    return [
        Record(name=_FALLBACKS, expr=f"{fallbacks} / (increase(ampd_windows_total[{short}]) > 0)"),
        Record(name=_LOST_COUNT, expr=f"{skipped} + increase(ampd_windows_quarantined_total[{long}])"),
        Record(name=_LOST, expr=f"{_LOST_COUNT} / (increase(ampd_windows_total[{long}]) > 0)"),
    ]


def alerts(pace: Pace) -> list[Alert]:
    """Every alert, the most specific to precision first."""
    return [*_precision_alerts(pace), *_progress_alerts(pace), *_process_alerts(pace)]


def document(pace: Pace, runbooks: str) -> dict[str, Any]:
    """The rule file; `runbooks` is the address that holds the runbooks, without a slash at its end."""
    recording = [{"record": record.name, "expr": record.expr} for record in records(pace)]
    alerts_of_all = [alerting(alert, pace, runbooks) for alert in alerts(pace)]
    interval = pace.duration(INTERVAL)
    return {
        "groups": [
            {"name": "ampd-records", "interval": interval, "rules": recording},
            {"name": "ampd-alerts", "interval": interval, "rules": alerts_of_all},
        ]
    }


def texts(alert: Alert, runbooks: str) -> dict[str, str]:
    """What a person reads who gets the alert."""
    return {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{runbooks}/{alert.name}.md",
        "dashboard": "/d/ampd-overview",
        "panel": alert.panel,
    }


def alerting(alert: Alert, pace: Pace, runbooks: str) -> dict[str, Any]:
    """An alert as Prometheus reads it."""
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
    rule |= {"for": pace.duration(alert.hold)} if alert.hold else {}
    rule |= {"keep_firing_for": pace.duration(alert.keep)} if alert.keep else {}
    return rule | {"labels": {"severity": alert.severity}, "annotations": texts(alert, runbooks)}


def _precision_alerts(pace: Pace) -> list[Alert]:
    return [_fallback_spike(pace), _fallback_high(pace), _windows_skipped(pace), _scale_at_floor()]


def _fallback_spike(pace: Pace) -> Alert:
    hour, short = pace.duration(HOUR), pace.duration(5 * MINUTE)
    # The hour before is compared with only where the job is that old; until then the absolute part decides alone.
    usual = f"(avg_over_time({_FALLBACKS}[{hour}] offset {short}) and {_FALLBACKS} offset {hour})"
    return Alert(
        name="AmpdFallbackSpike",
        severity="warning",
        expr=f"{_FALLBACKS} > 0.02\nunless {_FALLBACKS} <= 3 * {usual}\n",
        hold=5 * MINUTE,
        keep=15 * MINUTE,
        summary="Many more windows than usual fall back to float32 on {{ $labels.instance }}.",
        description="{{ $value | humanizePercentage }} of the windows of the last "
        f"{short} on {{{{ $labels.instance }}}} were not finite at low precision and ran again in float32.",
        panel="Fallbacks by cause",
    )


def _fallback_high(pace: Pace) -> Alert:
    short = pace.duration(5 * MINUTE)
    return Alert(
        name="AmpdFallbackHigh",
        severity="warning",
        expr=f"{_FALLBACKS} > 0.1\n",
        hold=10 * MINUTE,
        keep=15 * MINUTE,
        summary="A large share of windows falls back to float32 on {{ $labels.instance }}.",
        description="{{ $value | humanizePercentage }} of the windows of the last "
        f"{short} on {{{{ $labels.instance }}}} ran twice: low precision costs time there instead of saving it.",
        panel="Fallbacks by cause",
    )


def _windows_skipped(pace: Pace) -> Alert:
    long = pace.duration(10 * MINUTE)
    return Alert(
        name="AmpdWindowsSkipped",
        severity="warning",
        expr=f"{_LOST} > 0.01\nand {_LOST_COUNT} >= 2\n",
        hold=2 * MINUTE,
        keep=10 * MINUTE,
        summary="Windows are lost on {{ $labels.instance }}.",
        description="{{ $value | humanizePercentage }} of the windows of the last "
        f"{long} on {{{{ $labels.instance }}}} were never applied: not even float32 made them finite, or fallback is off.",
        panel="Windows lost by cause",
    )


def _scale_at_floor() -> Alert:
    return Alert(
        name="AmpdLossScaleAtFloor",
        severity="critical",
        expr="ampd_loss_scale <= ampd_loss_scale_floor\nand ampd_loss_scale > 0\n",
        hold=5 * MINUTE,
        summary="The loss scale has collapsed to its floor on {{ $labels.instance }}.",
        description="The loss scale on {{ $labels.instance }} is {{ $value | humanize }}, which amp.min_scale does not let "
        "fall further: small gradients vanish, or every window overflows.",
        panel="Loss scale",
    )


def _progress_alerts(pace: Pace) -> list[Alert]:
    return [_stalled(pace), _checkpoint_stale()]


def _stalled(pace: Pace) -> Alert:
    limit, hour = pace.seconds(5 * MINUTE), pace.duration(HOUR)
    # 20 windows of the usual length, for jobs whose windows are slow; without any in the hour there is no excuse.
    usual = f"20 / (rate(ampd_windows_total[{hour}]) > 0)"
    return Alert(
        name="AmpdTrainingStalled",
        severity="critical",
        expr=f"{_PROGRESS_GAP} > {limit}\nand {_RUNNING}\n"
        f"and (time() - ampd_job_state_since_timestamp_seconds) > {limit}\n"
        f"unless {_PROGRESS_GAP} <= {usual}\n",
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
        expr=f"(ampd_window - ampd_last_checkpoint_window) > 3 * ampd_checkpoint_interval_windows\nand {_RUNNING}\n",
        hold=5 * MINUTE,
        summary="Checkpoints are not being written on {{ $labels.instance }}.",
        description="A crash on {{ $labels.instance }} would now lose {{ $value | humanize }} windows, "
        "more than three checkpoint intervals.",
        panel="Windows at risk",
    )


def _process_alerts(pace: Pace) -> list[Alert]:
    day = pace.duration(DAY)
    ended_well = (
        f'sum without (state) (last_over_time(ampd_job_state{{state=~"completed|stopped"}}[{day}])) > 0'
    )
    return [
        Alert(
            name="AmpdJobFailed",
            severity="critical",
            expr='ampd_job_state{state="failed"} == 1\n',
            summary="The job on {{ $labels.instance }} has failed.",
            description="The job on {{ $labels.instance }} has failed and will not be started again by itself.",
            panel="State",
        ),
        Alert(
            name="AmpdDown",
            severity="critical",
            expr=f'up{{job=~"ampd.*"}} == 0\nunless {ended_well}\n',
            hold=2 * MINUTE,
            summary="No daemon answers on {{ $labels.instance }}.",
            description="Prometheus cannot scrape {{ $labels.instance }}, and the job there had not ended "
            "when it was last seen.",
            panel="State",
        ),
    ]
