"""What the four dashboards share: choices at the top, marks on the time axis, links to each other.

The same on each, so that a reader who follows a link finds the same job, the same hour and the same marks. Marks are
made from metrics and not written by the daemon into Grafana: they are there for every hour that Prometheus still has,
also for a Grafana that was set up later, and the daemon needs no key of anybody's. Those that come in swarms (checkpoints,
fallbacks) are off until somebody switches them on at the top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from grafana.generate import queries as q
from grafana.generate.model import Annotation, Dashboard, Link, Panel, Source, Variable, to_json
from grafana.generate.panels import Section, lay_out

TAG = "ampd"


def dashboard(*, uid: str, title: str, description: str, sections: Iterable[Section]) -> dict[str, Any]:
    """A dashboard of these sections as plain data, within the frame."""
    panels = lay_out(sections)
    made = Dashboard(
        uid=uid,
        title=f"ampd / {title}",
        description=description,
        tags=[TAG],
        links=[Link(title="ampd", tags=[TAG], tooltip="The other dashboards, for the same jobs and time")],
        panels=panels,
        templating={"list": _variables(panels)},
        annotations={"list": _annotations()},
        time={"from": "now-1h", "to": "now"},
    )
    return to_json(made)


def _variables(panels: Sequence[Panel]) -> list[Variable]:
    chosen = [
        Variable(name="datasource", type="datasource", label="Data source", query="prometheus",
                 description="The Prometheus that scrapes the jobs."),
        _choice("job", "Job", "label_values(ampd_build_info, job)", "Prometheus's job label."),
        _choice("instance", "Instance", 'label_values(ampd_build_info{job=~"$job"}, instance)', "One for each daemon."),
    ]  # fmt: skip
    if any("$rank" in target.expr for panel in panels for target in panel.targets):
        ranks = 'label_values(ampd_memory_bytes{job=~"$job", instance=~"$instance"}, rank)'
        chosen.append(_choice("rank", "Rank", ranks, "One for each process of a job."))
    return chosen


def _choice(name: str, label: str, query: str, description: str) -> Variable:
    return Variable(
        name=name,
        type="query",
        label=label,
        description=description,
        query={"query": query, "refId": f"variable-{name}"},
        definition=query,
        datasource=Source(),
        include_all=True,
        all_value=".+",
        multi=True,
        current={"selected": True, "text": ["All"], "value": ["$__all"]},
    )


def _annotations() -> list[Any]:
    built_in = {
        "builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
    }  # fmt: skip
    return [
        built_in,
        Annotation(name="Configuration changes", expr=f"{q.increase('ampd_config_changes_total')} > 0", icon_color="blue",
                   title_format="{{author}} changed the configuration of {{instance}}"),
        Annotation(name="Precision changes", expr=f"{q.increase('ampd_precision_changes_total')} > 0", icon_color="yellow",
                   title_format="{{instance}} attempts windows in {{to}} from here"),
        Annotation(name="Worker restarts", expr=f"{q.increase('ampd_worker_restarts_total')} > 0", icon_color="red",
                   title_format="the worker of {{instance}} was started again: {{reason}}"),
        Annotation(name="Fallbacks above 2 %", expr=f"{q.per_window('ampd_fp32_fallbacks_total')} > 0.02",
                   icon_color="orange", title_format="windows of {{instance}} fall back to float32", enable=False),
        Annotation(name="Fallback limit passed", expr=f"{q.increase('ampd_fallback_limit_reached_total')} > 0",
                   icon_color="purple", title_format="{{instance}} passed amp.max_fp32_fallbacks in this epoch", enable=False),
        Annotation(name="Alerts", expr=q.ALERTS, icon_color="dark-red", title_format="{{alertname}} on {{instance}}"),
        Annotation(name="Checkpoints", expr=f"{q.increase('ampd_checkpoints_total')} > 0", icon_color="green",
                   title_format="{{instance}} saved a checkpoint", enable=False),
    ]  # fmt: skip
