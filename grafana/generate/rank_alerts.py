"""Alerts about ranks that train together: do they have the same weights, and does one of them hold up the rest?"""

from __future__ import annotations

from grafana.generate.alert import Alert
from grafana.generate.pace import HOUR, MINUTE, Pace


def rank_alerts(pace: Pace) -> list[Alert]:
    """Weights and speed."""
    return [_diverged(pace), _straggler(pace)]


def _diverged(pace: Pace) -> Alert:
    hour = pace.duration(HOUR)
    return Alert(
        name="AmpdRanksDiverged",
        severity="critical",
        expr=f"increase(ampd_rank_divergence_total[{hour}]) > 0\n",
        summary="Ranks of {{ $labels.instance }} no longer have the same weights.",
        description='{{ $value | printf "%.0f" }} comparisons within the last '
        f"{hour} found a rank of {{{{ $labels.instance }}}} with other weights than the rest: what is trained is no one model.",
        panel="Ranks apart",
        dashboard="ampd-performance",
    )


def _straggler(pace: Pace) -> Alert:
    work = f"rate(ampd_rank_work_seconds_total[{pace.duration(5 * MINUTE)}])"
    return Alert(
        name="AmpdRankStraggler",
        severity="warning",
        expr=f"max without (rank) ({work}) > 1.2 * avg without (rank) ({work})\n",
        hold=15 * MINUTE,
        summary="One rank of {{ $labels.instance }} holds up the others.",
        description="The slowest rank of {{ $labels.instance }} works {{ $value | humanizePercentage }} of the time, "
        "over 1.2 times what its ranks do on average, and the others wait for it.",
        panel="Work by rank",
        dashboard="ampd-performance",
    )
