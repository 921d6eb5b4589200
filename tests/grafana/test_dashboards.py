"""Dashboards: the lint, the lint of the lint, and provisioning."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from grafana.generate.alert import GOODPUT
from grafana.generate.check import lint_dashboard, lint_expression, names_in
from grafana.generate.outputs import HOME, dashboards
from grafana.generate.overview import overview
from grafana.generate.pace import Pace
from grafana.generate.performance import performance
from grafana.generate.precision import precision
from grafana.generate.rules import records

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


def test_there_are_four_and_each_has_an_address_of_its_own() -> None:
    """Links and alerts name dashboards by uid."""
    assert [path.stem for path in DASHBOARDS] == sorted(each["uid"] for each in dashboards())
    assert len({each["uid"] for each in dashboards()}) == len({each["title"] for each in dashboards()}) == 4


def test_links_of_cells_lead_to_a_dashboard_that_is_there() -> None:
    """The way from the list of jobs to one job, with the time range."""
    text = "".join(path.read_text(encoding="utf-8") for path in DASHBOARDS)
    found = set(re.findall(r"/d/([\w-]+)", text))

    assert found == {"ampd-overview"}
    assert "var-instance=${__value.raw}&${__url_time_range}" in text


def variable(dashboard: Dashboard, name: str = "job") -> Dashboard:
    """The variable of that name."""
    found: Dashboard = next(v for v in dashboard["templating"]["list"] if v["name"] == name)
    return found


def mark(dashboard: Dashboard, name: str = "Alerts") -> Dashboard:
    """The annotation of that name."""
    found: Dashboard = next(a for a in dashboard["annotations"]["list"] if a["name"] == name)
    return found


def ask(dashboard: Dashboard, expr: str) -> None:
    """Let the first query of a panel ask this of the chosen jobs."""
    panel(dashboard)["targets"][0]["expr"] = expr.replace("{}", '{job=~"$job", instance=~"$instance"}')


def _add_table(d: Dashboard) -> None:
    panel(d).update(type="table")


def _drop_variable(d: Dashboard) -> None:
    d["templating"]["list"].pop(0)


def _overlap(d: Dashboard) -> None:
    panel(d, "Gradient norm")["gridPos"] = dict(panel(d)["gridPos"])


def _same_ref(d: Dashboard) -> None:
    panel(d)["targets"][1]["refId"] = "A"


BREAKAGES: list[tuple[Callable[[Dashboard], object], str]] = [
    (lambda d: d.update(schemaVersion=22), "schemaVersion"),
    (lambda d: d.update(description=""), "a description"),
    (lambda d: d.update(editable=True), "editable"),
    (lambda d: d.update(links=[]), "no link to the other dashboards"),
    (lambda d: d["links"][0].update(includeVars=False), "no link to the other dashboards"),
    (lambda d: d["links"][0].update(keepTime=False), "no link to the other dashboards"),
    (lambda d: d["links"][0].update(tags=["other"]), "no link to the other dashboards"),
    (lambda d: variable(d, "datasource").update(query="loki"), "$datasource: is not a choice"),
    (lambda d: variable(d).update(label=""), "$job: no label"),
    (lambda d: variable(d).update(datasource={"uid": "prom"}), "$job: does not ask the chosen data source"),
    (lambda d: variable(d, "instance").update(allValue=None), "$instance: several and all"),
    (lambda d: variable(d).update(multi=False), "$job: several and all"),
    (lambda d: variable(d).update(refresh=1), "$job: does not ask again"),
    (lambda d: variable(d).update(definition="label_values(ampd_bild_info, job)"), "$job: no metric"),
    (lambda d: variable(d).update(name="task"), "$task is declared and not used"),
    (lambda d: variable(d, "instance").update(name="host"), "$instance is used and not declared"),
    (lambda d: mark(d).update(titleFormat=""), "Alerts: a mark without a text"),
    (lambda d: mark(d).update(expr="ALERTS"), "Alerts: a selector"),
    (lambda d: mark(d).update(datasource={"uid": "prom"}), "Alerts: its data source"),
    (lambda d: panel(d)["fieldConfig"]["defaults"].update(thresholds={"steps": []}), "thresholds"),
    (
        lambda d: panel(d, "Fallbacks")["fieldConfig"]["defaults"]["thresholds"]["steps"].reverse(),
        "thresholds",
    ),
    (lambda d: panel(d)["targets"][0].update(legendFormat=""), "have no name"),
    (lambda d: panel(d).update(type="heatmap"), "heat is drawn from the buckets"),
    (lambda d: ask(d, "ampd_window_grad_norm_bucket{}"), "ampd_window_grad_norm_bucket only grows"),
    (_add_table, "a table shows instant queries"),
    (lambda d: ask(d, "increase(ampd_windows_total{}[$__range])"), "a curve of the whole period"),
    (lambda d: ask(d, "ampd_windows_total{}"), "ampd_windows_total only grows"),
    (lambda d: ask(d, "sum(ampd_windows_total{})"), "ampd_windows_total only grows"),
    (lambda d: ask(d, "ampd_loss{} / ampd_window{}"), "divides by what may be 0"),
    (lambda d: ask(d, "ampd_loss{} / (ampd_window{})"), "divides by what may be 0"),
    (lambda d: ask(d, "ampd_loss{} / on (job) group_left () (ampd_window{})"), "divides by what may be 0"),
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
    (lambda d: panel(d)["gridPos"].update(w=4), "a hole in the grid"),
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
        ("rate(ampd_window_duration_seconds_bucket[5m])", []),
        ('ampd_window_duration_seconds_bucket{le="0.1"}', []),
        ("ampd_window_duration_seconds > 1", ["no metric ampd_window_duration_seconds"]),
        ('up{job="ampd_gone"}', []),
    ],
)
def test_expressions_are_held_to_the_table(expr: str, findings: list[str]) -> None:
    """Names and labels, recorded names included; what stands in quotes is no metric."""
    assert lint_expression(expr) == findings


@pytest.mark.parametrize("each", dashboards(), ids=lambda each: str(each["uid"]))
def test_every_dashboard_marks_what_explains_a_curve(each: Dashboard) -> None:
    """Changes, restarts, fallbacks, the limit, alerts and checkpoints, at the times when they happened."""
    marks = [a["name"] for a in each["annotations"]["list"] if not a.get("builtIn")]

    assert marks == [
        "Configuration changes", "Precision changes", "Worker restarts", "Fallbacks above 2 %", "Fallback limit passed", "Alerts", "Checkpoints",
    ]  # fmt: skip


def test_a_choice_of_rank_is_offered_where_ranks_differ() -> None:
    """Memory is of each process; a dashboard without such a panel has no choice that does nothing."""
    offered = {d["uid"] for d in dashboards() if any(v["name"] == "rank" for v in d["templating"]["list"])}

    assert offered == {"ampd-overview", "ampd-performance"}


def test_a_table_shows_its_columns_in_order_and_nothing_else() -> None:
    """Queries that only bring labels, and the time, are hidden; every shown column has a name."""
    shown = panel(precision(), "Before and after")
    (_merge, organize) = shown["transformations"]
    hidden = {name for name, is_hidden in organize["options"]["excludeByName"].items() if is_hidden}
    named = [o["matcher"]["options"] for o in shown["fieldConfig"]["overrides"]]

    assert hidden == {"Time"}
    assert named == sorted(organize["options"]["indexByName"], key=organize["options"]["indexByName"].get)
    assert named[:3] == ["instance", "precision", "Value #A"]


def test_the_precision_dashboard_tells_the_whole_story_of_a_window() -> None:
    """Attempt, fallback, replay, loss: each ledger counter of precision is on it."""
    named = {name for p in precision()["panels"] for t in p["targets"] for name in names_in(t["expr"])}

    assert named >= {
        "ampd_precision", "ampd_loss_scale", "ampd_loss_scale_changes_total", "ampd_fp32_fallbacks_total", "ampd_replays_total",
        "ampd_windows_low_precision_total", "ampd_windows_skipped_total", "ampd_windows_quarantined_total",
        "ampd_fallback_limit_reached_total", "ampd_grad_norm", "ampd_grad_zeros_ratio", "ampd_memory_kept_bytes",
    }  # fmt: skip


def test_goodput_is_what_the_alert_on_it_means() -> None:
    """Training per time in which the job was meant to train, of the daemon's clock: a worker that is down is no excuse."""
    (query,) = panel(performance(), "Goodput")["targets"]
    (rule,) = (record.expr for record in records(Pace()) if record.name == GOODPUT)
    meant = re.findall(r'(?:activity|state)=~?"[^"]*"', rule)

    assert meant == re.findall(r'(?:activity|state)=~?"[^"]*"', query["expr"])
    assert "recovering" in meant[1] and "paused" not in meant[1]


@pytest.mark.parametrize(
    ("title", "word", "color"),
    [("State over time", "failed", "red"), ("Precision over time", "float16", "purple")],
)
def test_a_bar_of_words_says_which_number_is_which(title: str, word: str, color: str) -> None:
    """The query multiplies by a word's place; the mapping of that number is the word."""
    shown = panel(overview(), title)
    (mapping,) = shown["fieldConfig"]["defaults"]["mappings"]
    place = re.search(rf"(\d) \* \w+\{{\w+=\"{word}\"", shown["targets"][0]["expr"])

    assert place is not None
    assert mapping["options"][place[1]] == {"text": word, "color": color}


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
