"""The daemon's own alerts: each fires, stays silent, and agrees with the Prometheus rule of its name."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from ampd.core.lately import Lately
from ampd.core.ledger import Counts
from ampd.core.lifecycle import JobState
from ampd.core.phase import Phase, Standing
from ampd.core.view import JobView
from ampd.telemetry import alerts as judged
from ampd.telemetry import runbooks
from ampd.telemetry.alerts import alerts
from grafana.generate import rules
from grafana.generate.pace import Pace
from tests.telemetry import views

NOW = views.STARTED + 7200
MINUTE = 60


def lately(*stretches: tuple[int, int, int]) -> Lately:
    """Minutes up to now, each stretch (minutes, fallbacks a minute, losses a minute) of 100 windows a minute."""
    made, total = Lately(), Counts()
    now = NOW - MINUTE * sum(minutes for minutes, _fallen, _lost in stretches)
    made.add(now, total)
    for minutes, fallen, lost in stretches:
        for _ in range(minutes):
            now += MINUTE
            total = total.plus(Counts(windows=100, fp32_fallbacks={"scale": fallen}, skipped={"data": lost}))
            made.add(now, total)
    return made


def job(*stretches: tuple[int, int, int], **fields: Any) -> JobView:
    """A job that is well but for what is said."""
    return views.running(
        **(
            {"last_progress": NOW - 1, "heard": {0: NOW - 1}, "lately": lately(*(stretches or [(70, 0, 0)]))}
            | fields
        )
    )


def names(view: JobView) -> list[str]:
    """The alerts that hold now."""
    return [alert.name for alert in alerts(view, NOW)]


def troubled(*, restarts: tuple[float, ...] = (), failed_saves: tuple[float, ...] = ()) -> Lately:
    """A calm job but for what happened these many minutes ago."""
    made = lately((70, 0, 0))
    for ago in restarts:
        made.restarted(NOW - MINUTE * ago)
    for ago in failed_saves:
        made.failed_to_save(NOW - MINUTE * ago)
    return made


AT_FLOOR = {0: views.snapshot(scale=1.0)}
FAR_FROM_SAVED = {0: views.snapshot(window=390 + 1501)}


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (job(), []),
        (views.starting(), []),
        (job((5, 20, 0)), ["AmpdFallbackHigh"]),
        (job((65, 0, 0), (5, 4, 0)), ["AmpdFallbackSpike"]),
        (job((5, 4, 0)), ["AmpdFallbackSpike"]),
        (job((70, 4, 0)), []),
        (job((65, 1, 0), (5, 4, 0)), ["AmpdFallbackSpike"]),
        (job((65, 0, 0), (5, 2, 0)), []),
        (job((60, 20, 0), (10, 0, 0)), []),
        (job((5, 0, 2)), ["AmpdWindowsSkipped"]),
        (job((5, 0, 1)), []),
        (job((60, 0, 5), (12, 0, 0)), []),
        (job(snapshots=AT_FLOOR), ["AmpdLossScaleAtFloor"]),
        (job(snapshots={0: views.snapshot(scale=None)}), []),
        (job(snapshots=AT_FLOOR, state=JobState.COMPLETED), []),
        (job(last_progress=NOW - 301), ["AmpdTrainingStalled"]),
        (job(last_progress=NOW - 299), []),
        (job(last_progress=NOW - 301, state=JobState.PAUSED), []),
        (job(last_progress=NOW - 9000, state_since=NOW - 10), []),
        (job(state=JobState.FAILED), ["AmpdJobFailed"]),
        (job(snapshots=FAR_FROM_SAVED), ["AmpdCheckpointStale"]),
        (job(snapshots={0: views.snapshot(window=390 + 1500)}), []),
        (job(snapshots=FAR_FROM_SAVED, is_attached=True), []),
        (job(lately=troubled(restarts=(29, 10, 1))), ["AmpdWorkerCrashLooping"]),
        (job(lately=troubled(restarts=(31, 10, 1))), []),
        (job(lately=troubled(restarts=(3, 2, 1)), state=JobState.FAILED), ["AmpdJobFailed"]),
        (job(lately=troubled(failed_saves=(20, 1))), ["AmpdCheckpointFailing"]),
        (job(lately=troubled(failed_saves=(31, 1))), []),
        (job(snapshots={0: views.snapshot(skipped_in_a_row=21)}), ["AmpdAllWindowsSkipped"]),
        (job(snapshots={0: views.snapshot(skipped_in_a_row=20)}), []),
        (job(heard={0: NOW - 1, 1: NOW - 61}), ["AmpdWorkerSilent"]),
        (job(heard={0: NOW - 59}), []),
        (job(heard={0: NOW - 600}, standing=Standing(Phase.EVALUATION, 600.0, 7200.0)), []),
        (job(heard={0: NOW - 61}, standing=Standing(Phase.WINDOW, 61.0, 300.0)), ["AmpdWorkerSilent"]),
        (job(heard={0: NOW - 61}, state=JobState.RECOVERING), []),
    ],
)  # fmt: skip
def test_an_alert_holds_when_its_condition_does(view: JobView, expected: list[str]) -> None:
    """At the threshold nothing, beyond it the alert; trouble that is over has none."""
    assert names(view) == expected


def test_a_slow_job_is_given_twenty_of_its_windows() -> None:
    """Six windows an hour: half an hour without one says nothing."""
    slow = Lately()
    for window in range(7):
        slow.add(NOW - 3600 + 600 * window, Counts(windows=window))

    assert names(job(lately=slow, last_progress=NOW - 1800)) == []


def test_the_critical_ones_come_first() -> None:
    """What cannot wait is read first, on a phone too."""
    view = job((5, 20, 0), snapshots=AT_FLOOR, last_progress=NOW - 600)

    assert names(view) == ["AmpdTrainingStalled", "AmpdLossScaleAtFloor", "AmpdFallbackHigh"]


def test_an_alert_says_how_bad_it_is() -> None:
    """The figure that was judged, in words."""
    (alert,) = alerts(job((65, 0, 0), (5, 4, 0)), NOW)

    assert alert.says == "4.0% of the windows of the last 5 minutes fell back to float32."


ALL = {
    "AmpdJobFailed", "AmpdTrainingStalled", "AmpdWorkerSilent", "AmpdLossScaleAtFloor", "AmpdAllWindowsSkipped",
    "AmpdWindowsSkipped", "AmpdFallbackHigh", "AmpdFallbackSpike", "AmpdWorkerCrashLooping", "AmpdCheckpointFailing",
    "AmpdCheckpointStale",
}  # fmt: skip


def test_all_of_them_are_listed_here() -> None:
    """A new one is held to its rule, too."""
    assert set(re.findall(r'Alert\(\s*"(\w+)"', inspect.getsource(judged))) == ALL


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_alert_is_a_rule_with_its_severity_and_a_runbook(name: str) -> None:
    """One word per thing: `ampctl explain` and the pager know it by the same name."""
    (rule,) = (alert for alert in rules.alerts(Pace()) if alert.name == name)
    said = re.search(rf'Alert\(\s*"{name}", "(\w+)"', inspect.getsource(judged))

    assert said is not None
    assert said[1] == rule.severity
    assert name in runbooks.names()


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("AmpdFallbackSpike", f"> {judged.SPIKE}\n"),
        ("AmpdFallbackSpike", f"<= {judged.SPIKE_TIMES} * "),
        ("AmpdFallbackHigh", f"> {judged.HIGH}\n"),
        ("AmpdWindowsSkipped", f"> {judged.LOST}\n"),
        ("AmpdWindowsSkipped", f">= {judged.LOST_WINDOWS}\n"),
        ("AmpdTrainingStalled", f"> {judged.STALLED_SECONDS:g}\n"),
        ("AmpdTrainingStalled", f"<= {judged.STALLED_WINDOWS} / "),
        ("AmpdWorkerSilent", f"> {judged.SILENT_SECONDS:g}\n"),
        ("AmpdAllWindowsSkipped", f"> {judged.IN_A_ROW}\n"),
        ("AmpdWorkerCrashLooping", f">= {judged.RESTARTS}\n"),
        ("AmpdCheckpointFailing", f">= {judged.FAILED_SAVES}\n"),
        ("AmpdCheckpointStale", f"> {judged.INTERVALS} * ampd_checkpoint_interval_windows"),
    ],
)
def test_thresholds_are_those_of_the_rules(name: str, condition: str) -> None:
    """A page that disagrees with the pager would be believed by nobody."""
    (rule,) = (alert for alert in rules.alerts(Pace()) if alert.name == name)

    assert condition in rule.expr
