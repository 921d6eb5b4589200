"""Alerts about processes: the daemon, its worker, and what they say."""

from __future__ import annotations

from grafana.generate.alert import Alert
from grafana.generate.pace import DAY, MINUTE, Pace


def process_alerts(pace: Pace) -> list[Alert]:
    """Jobs that failed, daemons that are gone."""
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
