"""Dashboards: the lint, the lint of the lint, and provisioning."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from grafana.generate.check import lint_dashboard, lint_expression, names_in
from grafana.generate.outputs import HOME
from grafana.generate.overview import overview

Dashboard = dict[str, Any]
DASHBOARDS = sorted((HOME / "dashboards").glob("*.json"))


def panel(dashboard: Dashboard, title: str = "Loss") -> Dashboard:
    """The panel of that title."""
    found: Dashboard = next(p for p in dashboard["panels"] if p["title"] == title and p["type"] != "row")
    return found


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_the_dashboards_that_ship_are_clean(path: Any) -> None:
    """As Grafana will read them from the file."""
    assert lint_dashboard(json.loads(path.read_text(encoding="utf-8"))) == []


def _drop_variable(d: Dashboard) -> None:
    d["templating"]["list"].pop(0)


def _overlap(d: Dashboard) -> None:
    panel(d, "Gradient norm")["gridPos"] = dict(panel(d)["gridPos"])


def _same_ref(d: Dashboard) -> None:
    panel(d)["targets"][1]["refId"] = "A"


BREAKAGES: list[tuple[Callable[[Dashboard], object], str]] = [
    (lambda d: d.update(schemaVersion=22), "schemaVersion"),
    (lambda d: d.update(description=""), "a description"),
    (_drop_variable, "no variable $datasource"),
    (_overlap, "overlaps"),
    (lambda d: panel(d)["gridPos"].update(x=20), "beyond the grid"),
    (lambda d: panel(d).update(id=panel(d, "State")["id"]), "two panels have the id"),
    (lambda d: panel(d).update(title="State"), "two panels have the title"),
    (lambda d: panel(d).update(description=""), "no description"),
    (lambda d: panel(d).update(description="The loss."), "does not say that it shows ampd_loss"),
    (lambda d: panel(d).update(type="graph"), "type 'graph'"),
    (lambda d: panel(d)["fieldConfig"]["defaults"].update(unit="GPUs"), "unit 'GPUs'"),
    (lambda d: panel(d).update(datasource={"type": "prometheus", "uid": "prom"}), "not the variable"),
    (lambda d: panel(d)["targets"][0].update(datasource={"uid": "prom"}), "A: its data source"),
    (lambda d: panel(d).update(targets=[]), "no query"),
    (_same_ref, "two queries are called A"),
    (lambda d: panel(d)["targets"][0].update(refId=""), "no refId"),
    (
        lambda d: panel(d)["targets"][0].update(expr='ampd_los{job=~"$job", instance=~"$instance"}'),
        "no metric ampd_los",
    ),
    (lambda d: panel(d)["targets"][0].update(expr="ampd_loss"), "without $job and $instance"),
    (lambda d: panel(d)["targets"][0].update(expr='ampd_loss{job=~"$job"}'), "without $job and $instance"),
    (
        lambda d: panel(d)["targets"][0].update(
            expr='rate(ampd_events_total{job=~"$job", instance=~"$instance"}[5m])'
        ),
        "a fixed range",
    ),
]


@pytest.mark.parametrize(("break_it", "finding"), BREAKAGES, ids=[finding for _break, finding in BREAKAGES])
def test_the_lint_finds_each_broken_rule(break_it: Callable[[Dashboard], object], finding: str) -> None:
    """A dashboard that breaks one rule gets a finding that names it."""
    broken = copy.deepcopy(overview())

    break_it(broken)

    assert any(finding in found for found in lint_dashboard(broken)), lint_dashboard(broken)


@pytest.mark.parametrize(
    ("expr", "findings"),
    [
        ("rate(ampd_windows_total[5m])", []),
        ('ampd_job_state{state="running", job="a"}', []),
        ('ampd_windows_total{cause="data"}', ["ampd_windows_total has no label cause"]),
        ("ampd_windos_total", ["no metric ampd_windos_total"]),
        ("instance:ampd_fp32_fallbacks:ratio5m > 1", []),
        ("instance:ampd_fp32_fallbacks:ratio7m > 1", ["no metric instance:ampd_fp32_fallbacks:ratio7m"]),
        ('up{job="ampd_gone"}', []),
    ],
)
def test_expressions_are_held_to_the_table(expr: str, findings: list[str]) -> None:
    """Names and labels, recorded names included; what stands in quotes is no metric."""
    assert lint_expression(expr) == findings


def test_the_overview_shows_what_an_engineer_must_see() -> None:
    """State, precision, loss, scale, fallbacks, skips, throughput, memory and checkpoints."""
    named = {name for p in overview()["panels"] for t in p["targets"] for name in names_in(t["expr"])}

    assert named >= {
        "ampd_job_state", "ampd_precision", "ampd_loss", "ampd_loss_scale", "ampd_fp32_fallbacks_total",
        "ampd_windows_skipped_total", "ampd_windows_total", "ampd_memory_bytes", "ampd_last_checkpoint_window",
    }  # fmt: skip


def test_the_loss_scale_is_drawn_in_powers_of_two_and_fallbacks_are_stacked() -> None:
    """A scale halves and doubles; causes add up to a rate."""
    scale = panel(overview(), "Loss scale")["fieldConfig"]["defaults"]["custom"]
    fallbacks = panel(overview(), "Fallbacks by cause")["fieldConfig"]["defaults"]["custom"]

    assert scale["scaleDistribution"] == {"type": "log", "log": 2}
    assert fallbacks["stacking"]["mode"] == "normal"


def test_provisioning_loads_the_dashboards_from_where_it_says() -> None:
    """Both files are of the first provisioning format, and name a file provider and a Prometheus."""
    provider = (HOME / "provisioning" / "dashboards" / "ampd.yml").read_text(encoding="utf-8")
    source = (HOME / "provisioning" / "datasources" / "ampd.yml").read_text(encoding="utf-8")

    assert re.search(r"^apiVersion: 1$", provider, re.MULTILINE)
    assert re.search(r"^apiVersion: 1$", source, re.MULTILINE)
    assert re.search(r"^    type: file$", provider, re.MULTILINE)
    assert re.search(r"^    type: prometheus$", source, re.MULTILINE)
