"""Rules: lint, unit tests that would fail if a clause were missing, runbooks, and the time scale."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ampd.cli.ampctl import cli
from ampd.telemetry.family import Kind
from ampd.telemetry.metrics import FAMILIES
from grafana.generate import cases, rules
from grafana.generate.alert import Alert
from grafana.generate.check import lint_expression, names_in
from grafana.generate.history import Case
from grafana.generate.outputs import HOME, RUNBOOKS, dashboards
from grafana.generate.pace import Pace
from grafana.generate.yaml import to_yaml
from tests.telemetry.servers import needs_servers, run_tool

ALERTS = {alert.name: alert for alert in rules.alerts(Pace())}
RULES = HOME / "prometheus" / "rules.yml"
SECTIONS = ["Meaning", "Impact", "Look at", "Run", "Fix", "False positives"]
SHOWN = {each["uid"]: {panel["title"] for panel in each["panels"]} for each in dashboards()}
PANELS = set().union(*SHOWN.values())
VERBS = set(cli.commands)


@needs_servers
def test_promtool_lints_the_rules() -> None:
    """Every check that promtool has, each of them fatal."""
    assert f"{len(ALERTS) + len(rules.records(Pace()))} rules found" in run_tool(
        "promtool", "check", "rules", "--lint=all", "--lint-fatal", str(RULES)
    )


@needs_servers
@pytest.mark.timeout(300)
def test_every_history_of_every_alert_ends_as_expected() -> None:
    """Fires, stays silent, resolves: promtool plays all of them."""
    run_tool("promtool", "test", "rules", str(HOME / "prometheus" / "tests" / "alerts.yml"))


@needs_servers
def test_the_example_configurations_are_valid() -> None:
    """Prometheus's with its rule file, and Alertmanager's with its inhibitions."""
    run_tool(
        "promtool",
        "check",
        "config",
        "--lint=all",
        "--lint-fatal",
        str(HOME / "prometheus" / "prometheus.yml"),
    )
    found = run_tool("amtool", "check-config", str(HOME / "prometheus" / "alertmanager.yml"))

    assert "10 inhibit rules" in found


def test_each_alert_has_a_history_of_each_kind() -> None:
    """One that fires, one that stays silent, one that resolves; none for an alert that is not there."""
    kinds = {name: {case.kind for case in cases.cases() if case.alert == name} for name in ALERTS}

    assert kinds == {name: {"fires", "stays silent", "resolves"} for name in ALERTS}
    assert {case.alert for case in cases.cases()} == ALERTS.keys()


@pytest.mark.parametrize("case", cases.cases(), ids=lambda case: f"{case.alert} {case.kind}: {case.why}")
def test_a_history_shows_what_its_kind_says(case: Case) -> None:
    """A silent one is silent throughout, a firing one ends loud, a resolving one is loud and then silent."""
    loud = [shown is not None for _minute, shown in sorted(case.firing.items())]

    match case.kind:
        case "fires":
            assert loud[-1]
        case "stays silent":
            assert not any(loud)
        case "resolves":
            assert loud == [True, False]


def _clauses() -> list[tuple[str, int]]:
    return [
        (alert.name, number) for alert in ALERTS.values() for number in range(1, len(alert.expr.splitlines()))
    ]


@needs_servers
@pytest.mark.parametrize(("name", "number"), _clauses())
def test_each_clause_of_an_alert_is_needed_by_a_history(name: str, number: int, tmp_path: Path) -> None:
    """A rule without it fails the unit tests; so each `and` and `unless` is there for a reason that is tested."""
    lines = ALERTS[name].expr.splitlines()
    broken = replace(ALERTS[name], expr="\n".join(lines[:number] + lines[number + 1 :]))

    assert not _passes(tmp_path, broken)


@needs_servers
@pytest.mark.parametrize("name", [name for name, alert in ALERTS.items() if alert.hold])
def test_each_wait_of_an_alert_is_needed_by_a_history(name: str, tmp_path: Path) -> None:
    """An alert that fired at once would fail its tests."""
    assert not _passes(tmp_path, replace(ALERTS[name], hold=0.0))


def _passes(directory: Path, alert: Alert) -> bool:
    """Whether the histories of this alert's name pass with it in place of the one that ships."""
    group = {"name": "records", "rules": [{"record": r.name, "expr": r.expr} for r in rules.records(Pace())]}
    alone = {"name": "alert", "rules": [rules.alerting(alert, Pace(), RUNBOOKS)]}
    chosen = [case for case in cases.cases() if case.alert == alert.name]
    (directory / "rules.yml").write_text(to_yaml({"groups": [group, alone]}), encoding="utf-8")
    (directory / "tests").mkdir(exist_ok=True)
    histories = directory / "tests" / "alerts.yml"
    histories.write_text(to_yaml(cases.document(RUNBOOKS, chosen)), encoding="utf-8")
    command = ["promtool", "test", "rules", str(histories)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


@needs_servers
@pytest.mark.parametrize("name", ALERTS)
def test_the_histories_pass_with_the_alert_as_it_ships(name: str, tmp_path: Path) -> None:
    """The counterpart of the two tests above: there it is the change that fails, not the harness."""
    assert _passes(tmp_path, ALERTS[name])


@pytest.mark.parametrize("scale", [1, 60])
def test_rules_name_only_metrics_and_labels_that_exist(scale: float) -> None:
    """A misspelt metric is a rule that never fires and never says so."""
    assert [finding for expr in _expressions(scale) for finding in lint_expression(expr)] == []


def _expressions(scale: float = 1) -> list[str]:
    pace = Pace(scale)
    return [r.expr for r in rules.records(pace)] + [a.expr for a in rules.alerts(pace)]


def test_rates_are_taken_of_counters_only() -> None:
    """`increase` of a gauge is a number without meaning."""
    gauges = [family.name for family in FAMILIES if family.kind is not Kind.COUNTER]
    rated = re.compile(r"(?:rate|increase)\((\w+)[\[{]")

    assert not {name for expr in _expressions() for name in rated.findall(expr)}.intersection(gauges)


def test_recorded_names_have_a_level_and_an_operation() -> None:
    """level:metric:operations, so that a recorded series cannot be taken for one that we export."""
    assert all(len(record.name.split(":")) == 3 for record in rules.records(Pace()))


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_what_is_wrong_where_and_what_to_do(name: str) -> None:
    """Summary and description name the instance; the runbook exists, and the panel on the dashboard that is linked."""
    alert, texts = ALERTS[name], rules.texts(ALERTS[name], RUNBOOKS)

    assert "{{ $labels.instance }}" in alert.summary
    assert "{{ $labels.instance }}" in alert.description
    assert texts["runbook_url"] == f"grafana/runbooks/{name}.md"
    assert texts["dashboard"] == f"/d/{alert.dashboard}"
    assert alert.panel in SHOWN[alert.dashboard]


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_whole_runbook(name: str) -> None:
    """Meaning, impact, panels, commands, fix and false positives, in this order, none of them empty."""
    text = (HOME / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    title, *parts = re.split(r"^## ", text, flags=re.MULTILINE)

    assert title.strip() == f"# {name}"
    assert [part.partition("\n")[0] for part in parts] == SECTIONS
    assert all(part.partition("\n")[2].strip() for part in parts)


@pytest.mark.parametrize("name", ALERTS)
def test_runbooks_name_only_panels_and_commands_that_exist(name: str) -> None:
    """Someone reads this at three in the morning."""
    text = (HOME / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    look_at = text.partition("## Look at")[2].partition("\n## ")[0]

    assert set(re.findall(r"\*\*([^*]+)\*\*", look_at)) <= PANELS
    assert set(re.findall(r"\bampctl ([a-z]+)", text)) <= VERBS


def test_there_is_no_runbook_without_an_alert() -> None:
    """What nothing links to, nobody keeps up to date."""
    assert {path.stem for path in (HOME / "runbooks").glob("*.md")} == ALERTS.keys()


def test_inhibitions_name_only_alerts_that_exist() -> None:
    """A misspelt source inhibits nothing, without a word."""
    text = (HOME / "prometheus" / "alertmanager.yml").read_text(encoding="utf-8")

    named = re.findall(r'alertname!?=~?"([^"]+)"', text)

    assert [pattern for pattern in named if not any(re.fullmatch(pattern, name) for name in ALERTS)] == []


def test_a_time_scale_changes_times_and_nothing_else() -> None:
    """The rules that are tested fast are the rules that ship."""
    fast = to_yaml(rules.document(Pace(60), RUNBOOKS))
    shipped = to_yaml(rules.document(Pace(), RUNBOOKS))

    assert fast != shipped
    assert _without_times(fast) == _without_times(shipped)


def _without_times(text: str) -> str:
    times = re.compile(
        r'(\[|offset |for: "|interval: "|\) > |the last )(\d+(?:ms|d|h|m|s)?)+(?=[\]"\s),;:.])'
    )
    return times.sub(r"\1T", text)


@pytest.mark.parametrize(
    ("seconds", "scale", "text"),
    [
        (300, 1, "5m"),
        (5400, 1, "1h30m"),
        (86400, 1, "1d"),
        (300, 60, "5s"),
        (15, 60, "250ms"),
        (0.001, 60, "1ms"),
    ],
)
def test_durations_are_prometheus_durations(seconds: float, scale: float, text: str) -> None:
    """Exact to the millisecond, and never zero."""
    assert Pace(scale).duration(seconds) == text


def test_every_metric_of_the_ledger_that_means_trouble_is_watched() -> None:
    """Fallbacks, skips and quarantined windows are each in some rule."""
    named = {name for expr in _expressions() for name in names_in(expr)}

    assert {
        "ampd_fp32_fallbacks_total", "ampd_windows_skipped_total", "ampd_windows_quarantined_total",
    } <= named  # fmt: skip
