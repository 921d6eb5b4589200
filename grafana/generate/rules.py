"""Recording rules and alerts, as data.

An alert is about what a person must know or do: precision that costs time or loses windows, a job that stands
still, a job that is gone. Ratios are in windows; each divides after it has aggregated and guards its divisor.
One bad window of a slow job must not wake anybody: a fallback is seen for five minutes and must last as long, and of
lost windows there must be two; a single one is an `info`, for those who look. What a human asked for (a pause, a
rollback by policy) is no incident. Counts in texts are rounded, because `increase` extrapolates, and 1.008 crashes are
one. All counters are on the page at 0 from the first scrape, so `increase` sees the first fallback of a young job too.
"""

from __future__ import annotations

from typing import Any

from grafana.generate.alert import FALLBACKS, GOODPUT, LOST, LOST_COUNT, WINDOWS, Alert, Record
from grafana.generate.pace import HOUR, MINUTE, Pace
from grafana.generate.precision_alerts import precision_alerts
from grafana.generate.process_alerts import process_alerts
from grafana.generate.progress_alerts import progress_alerts
from grafana.generate.rank_alerts import rank_alerts

INTERVAL = 15.0
"""Seconds between two evaluations of a group."""


def records(pace: Pace) -> list[Record]:
    """What several alerts and panels need, computed once."""
    short, long = pace.duration(5 * MINUTE), pace.duration(10 * MINUTE)
    hour = pace.duration(HOUR)
    skipped = f"sum without (cause) (increase(ampd_windows_skipped_total[{long}]))"
    fallbacks = f"sum without (cause) (increase(ampd_fp32_fallbacks_total[{short}]))"
    return [
        Record(name=FALLBACKS, expr=f"{fallbacks} / (increase(ampd_windows_total[{short}]) > 0)"),
        Record(name=LOST_COUNT, expr=f"{skipped} + increase(ampd_windows_quarantined_total[{long}])"),
        Record(name=LOST, expr=f"{LOST_COUNT} / (increase(ampd_windows_total[{long}]) > 0)"),
        Record(name=WINDOWS, expr=f"rate(ampd_windows_total[{short}])"),
        Record(name=GOODPUT, expr=_goodput(hour)),
    ]


def _goodput(period: str) -> str:
    """Seconds of training in a second in which the job was meant to train; a pause that was asked for is none."""
    training = f'sum without (activity) (rate(ampd_wall_seconds_total{{activity="train"}}[{period}]))'
    meant = 'state=~"starting|running|recovering|stopping"'
    return f"{training} / (sum without (state) (rate(ampd_job_state_seconds_total{{{meant}}}[{period}])) > 0)"


def alerts(pace: Pace) -> list[Alert]:
    """Every alert, the most specific to precision first."""
    return [*precision_alerts(pace), *progress_alerts(pace), *process_alerts(pace), *rank_alerts(pace)]


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
        "dashboard": f"/d/{alert.dashboard}",
        "panel": alert.panel,
    }


def alerting(alert: Alert, pace: Pace, runbooks: str) -> dict[str, Any]:
    """An alert as Prometheus reads it."""
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
    rule |= {"for": pace.duration(alert.hold)} if alert.hold else {}
    rule |= {"keep_firing_for": pace.duration(alert.keep)} if alert.keep else {}
    return rule | {"labels": {"severity": alert.severity}, "annotations": texts(alert, runbooks)}
