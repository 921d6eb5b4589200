"""For every alert: a history in which it fires, one in which it stays silent, one in which it resolves.

The histories are promtool's: one value a minute from time 0, `0+10x60` a counter that grows by 10, `_` a
scrape that failed. The expected annotations are worked out from the alert's own templates, so a test fails
when its text breaks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from grafana.generate.alert import Alert
from grafana.generate.history import TARGET, Case
from grafana.generate.pace import Pace
from grafana.generate.precision_cases import precision_cases
from grafana.generate.process_cases import process_cases
from grafana.generate.progress_cases import progress_cases
from grafana.generate.rank_cases import rank_cases
from grafana.generate.rules import alerts, texts


def document(runbooks: str, chosen: Sequence[Case]) -> dict[str, Any]:
    """The promtool test file of these cases."""
    named = {alert.name: alert for alert in alerts(Pace())}
    return {
        "rule_files": ["../rules.yml"],
        "evaluation_interval": "1m",
        "tests": [_group(case, named[case.alert], runbooks) for case in chosen],
    }


def cases() -> list[Case]:
    """All histories, by alert."""
    return [*precision_cases(), *progress_cases(), *process_cases(), *rank_cases()]


def _group(case: Case, alert: Alert, runbooks: str) -> dict[str, Any]:
    return {
        "name": f"{case.alert} {case.kind}: {case.why}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.history.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": alert.name,
                "exp_alerts": [_expected(case, alert, runbooks, shown)] if shown is not None else [],
            }
            for minute, shown in case.firing.items()
        ],
    }


def _expected(case: Case, alert: Alert, runbooks: str, shown: str) -> dict[str, Any]:
    labels = {**TARGET, **dict(case.labels)}

    def filled(text: str) -> str:
        for label, value in labels.items():
            text = text.replace(f"{{{{ $labels.{label} }}}}", value)
        return re.sub(r"\{\{ \$value.*? \}\}", shown, text)

    return {
        "exp_labels": {"severity": alert.severity, **labels},
        "exp_annotations": {key: filled(text) for key, text in texts(alert, runbooks).items()},
    }
