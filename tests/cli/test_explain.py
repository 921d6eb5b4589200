"""`ampctl explain`: every word has an answer from the table that makes it, and a near miss a suggestion."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ampd.cli.ampctl import cli
from ampd.cli.ctl_explain import find, words
from ampd.core import keys
from ampd.core.ledger import Cause
from ampd.failpoints import POINTS
from ampd.telemetry import runbooks
from ampd.telemetry.metrics import FAMILIES
from grafana.generate.pace import Pace
from grafana.generate.rules import alerts


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *arguments])


def answers(word: str) -> list[dict[str, Any]]:
    """The answers as a program gets them."""
    return list(json.loads(explain(word, "--json").stdout)["answers"])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_metric_is_explained(family: Any) -> None:
    """What it is, with its labels and a query to begin with."""
    text = explain(family.name).stdout

    assert family.doc in text
    assert all(label.name in text for label in family.labels)
    assert "  try: " in text


@pytest.mark.parametrize("path", keys.table())
def test_every_key_is_explained(path: str) -> None:
    """Its meaning, what it takes, its default, and whether it can be changed now."""
    (answer,) = [answer for answer in find(path) if answer["kind"] == "key"]

    assert keys.table()[path].doc in answer["text"]
    assert ("live: ampctl set" in answer["text"]) == keys.table()[path].live
    assert answer["takes"] not in ("", "any value") or path == "workload.options"


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_is_explained(cause: Cause) -> None:
    """What it means, and where it is counted."""
    (answer,) = [answer for answer in find(cause) if answer["kind"] == "cause"]

    assert cause.doc in answer["text"]
    assert f'ampd_fp32_fallbacks_total{{cause="{cause}"}}' in answer["counters"]


@pytest.mark.parametrize("alert", [alert.name for alert in alerts(Pace(1.0))])
def test_every_alert_of_the_rules_is_explained(alert: str) -> None:
    """A person who was paged gets the runbook on the terminal, in whatever case the name was typed."""
    text = explain(alert.upper()).stdout

    assert text.startswith(f"{alert}\n\nMEANING\n")
    assert "\nFIX\n" in text
    assert "```" not in text and "**" not in text


def test_no_runbook_is_without_an_alert() -> None:
    """A runbook that no alert leads to would be explained as if it could fire."""
    assert set(runbooks.names()) == {alert.name for alert in alerts(Pace(1.0))}


def test_no_other_file_can_be_asked_for() -> None:
    """A name is looked up in the list, and never becomes a path."""
    with pytest.raises(KeyError):
        runbooks.runbook("../runbooks/AmpdDown")


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("dtype", ["amp.dtype"]),
        ("fp32_fallbacks_total", ["ampd_fp32_fallbacks_total"]),
        ("name", ["job.name", "workload.name", "optim.name"]),
    ],
)
def test_a_word_may_be_short_and_may_mean_several_things(word: str, names: list[str]) -> None:
    """A last part of a key, a metric without ampd_; each meaning has an answer."""
    assert [answer["name"] for answer in answers(word)] == names


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("ampd_windos_total", "ampd_windows_total"),
        ("AmpdFallbackSpikes", "AmpdFallbackSpike"),
        ("amp.dtyp", "amp.dtype"),
        ("transiant", "transient"),
        ("start.spwaned", "start.spawned"),
        ("fp32_falbacks_total", "ampd_fp32_fallbacks_total"),
    ],
)
def test_a_near_miss_is_answered_with_what_was_meant(wrong: str, meant: str) -> None:
    """Exit 2, one message, nothing on standard output."""
    result = explain(wrong)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{wrong!r} is no metric, alert, key, cause or failpoint; did you mean {meant!r}?" in result.stderr


def test_failpoints_are_listed() -> None:
    """Every step by name, with where it is, which takes errors, and how to switch it on."""
    text = explain("failpoints").stdout

    for name, point in POINTS.items():
        assert f"  {name:<22}{point.doc}" in text
    assert text.count("Takes errors.") == sum(point.takes_errors for point in POINTS.values())
    assert "AMPD_FAILPOINTS=" in text
    assert "journal.fsync" not in explain("start.bound").stdout


def test_nonsense_is_refused_without_a_guess() -> None:
    """No suggestion is better than a silly one."""
    assert "did you mean" not in explain("qqqqqqqqqqqq").stderr


def test_all_words_have_an_answer() -> None:
    """The list that suggestions come from holds nothing that cannot be explained."""
    assert [word for word in words() if not any(True for _ in find(word))] == []


def test_no_other_command_pays_for_it() -> None:
    """The Prometheus client and rich are loaded by nobody else, and explaining needs no socket library."""
    code = """
import sys
from click.testing import CliRunner
from ampd.cli.ampctl import cli
CliRunner().invoke(cli, ["--endpoint", "/nowhere", "status"])
print([name for name in ("prometheus_client", "rich", "ampd.telemetry") if name in sys.modules])
CliRunner().invoke(cli, ["explain", "ampd_window"])
print([name for name in ("prometheus_client", "torch", "starlette") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.split("\n")[:2] == ["[]", "[]"]
