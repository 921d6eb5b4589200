"""Do the dashboards and rules tell the truth? Every query of theirs is asked of a real Prometheus over a real job.

The job lives through what they are about: overflows, losses and gradients that are not finite, a lack of memory, a
constant that does not fit, changes, a reload, a checkpoint, evaluations, a killed worker. Then each expression of each
panel, variable, annotation, recording rule and alert is evaluated over the whole run. It must succeed, hold no NaN, and
have given something at some moment, or stand below with the reason why it cannot. An excuse that is not needed, or
whose query is gone, fails as well: a list of excuses must not outlive its reasons.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ampd.core import protocol as p
from ampd.core.faults import Fault
from ampd.errors import CommandError
from grafana.generate import rules
from grafana.generate.outputs import HOME
from grafana.generate.pace import Pace
from tests.daemon import daemons
from tests.daemon.daemons import Daemon, Job, until
from tests.story.jobs import digits_job, metrics_of
from tests.telemetry.servers import Prometheus, needs_servers, prometheus, rules_at

SCALE = 60
EXCUSED = {
    "ampd-performance / Samples and tokens / B": "digits are no tokens",
    "ampd-performance / Model FLOPs utilisation / A": "nobody says what a processor does at most",
    "ampd-performance / Work by rank / A": "one process waits for nobody",
    "ampd-precision / Gradients lost to zero / A": "taken in float16 without a loss scale only",
    "alert AmpdDeviceMemoryNearLimit": "only CUDA has an allocator that retries",
    "alert AmpdCheckpointFailing": "no checkpoint fails",
    "alert AmpdJobFailed": "the job does not fail",
    "alert AmpdRanksDiverged": "one process has the weights that it has",
    "alert AmpdRankStraggler": "one process waits for nobody",
    "alert AmpdWorkerCrashLooping": "one kill is no loop",
    "alert AmpdAbsent": "the target stays",
}
"""What cannot give anything in this run."""
BY_LOAD = dict.fromkeys(
    (
        "alert AmpdTrainingStalled", "alert AmpdThroughputRegression", "alert AmpdDataStarved", "alert AmpdCheckpointStale",
        "alert AmpdDown", "alert AmpdWorkerSilent", "alert AmpdGoodputLow", "alert AmpdTelemetryDropping",
    ),
    "at scale 60 a busy machine may be slow enough for it",
)  # fmt: skip
BY_LOAD["ampd-performance / Power of processors / A"] = "not every machine tells what it takes"
"""What may give something or not: these run, and what they give is not judged."""


@dataclass
class Report:
    """What was asked, and what came of it."""

    told: list[str] = field(default_factory=list)
    excused: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """For a person, with a line for each that gave nothing."""
        head = (
            f"{len(self.told) + len(self.excused) + len(self.failed)} queries: {len(self.told)} non-empty, "
        )
        lines = [f"  {name}: {reason}" for name, reason in self.excused.items()]
        return "\n".join(
            [f"{head}{len(self.excused)} excused, {len(self.failed)} failed", *lines, *self.failed]
        )


def asked() -> dict[str, str]:
    """Every expression by where it stands."""
    found: dict[str, str] = {}
    for path in sorted((HOME / "dashboards").glob("*.json")):
        found |= dict(_of_dashboard(json.loads(path.read_text(encoding="utf-8"))))
    found |= {f"record {record.name}": record.expr for record in rules.records(Pace(SCALE))}
    return found | {f"alert {alert.name}": alert.expr for alert in rules.alerts(Pace(SCALE))}


def _of_dashboard(dashboard: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    made = json.loads(json.dumps(dashboard))
    uid = made["uid"]
    for panel in made["panels"]:
        for target in panel["targets"]:
            yield f"{uid} / {panel['title']} / {target['refId']}", target["expr"]
    for mark in made["annotations"]["list"]:
        if "expr" in mark:
            yield f"{uid} / mark: {mark['name']}", mark["expr"]
    for variable in made["templating"]["list"]:
        if variable["type"] == "query":
            yield f"{uid} / variable: {variable['name']}", _of_variable(variable["definition"])


def _of_variable(definition: str) -> str:
    """Grafana asks for the values of a label; they are there where the metric is."""
    matched = re.fullmatch(r"label_values\((.+), (\w+)\)", definition)
    assert matched is not None, definition
    return f"count by ({matched[2]}) ({matched[1]})"


def filled(expr: str) -> str:
    """An expression with the variables as Grafana would put them in."""
    values = {"$__rate_interval": "5s", "$__range": "2m", "$job": ".+", "$instance": ".+", "$rank": ".+"}
    for name, value in values.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def judged(server: Prometheus, since: float) -> Report:
    """Ask everything."""
    report = Report()
    for name, expr in asked().items():
        series = server.ever(filled(expr), since)
        values = [value for each in series for _time, value in each["values"]]
        if "NaN" in values:
            report.failed.append(f"{name}: NaN in {expr}")
        elif series and name in EXCUSED:
            report.failed.append(f"{name} is excused, but gave something: {expr}")
        elif series:
            report.told.append(name)
        elif (reason := (EXCUSED | BY_LOAD).get(name)) is not None:
            report.excused[name] = reason
        else:
            report.failed.append(f"{name} gave nothing: {expr}")
    gone = (EXCUSED | BY_LOAD).keys() - asked().keys()
    report.failed += [f"{name} is excused, but no longer there" for name in gone]
    return report


COUNTED: tuple[tuple[Fault, int, str], ...] = (
    ("nan-grad", 5, 'ampd_windows_skipped_total{cause="model"}'),
    ("oom", 1, "ampd_memory_splits_total"),
    ("constant", 1, "ampd_modules_widened_total"),
)
"""Each with how many windows it hits, and the counter that tells of it."""
HELD: tuple[tuple[Fault, str], ...] = (
    ("overflow", "instance:ampd_fp32_fallbacks:ratio5m > 0.1"),
    ("nan-loss", "ampd_consecutive_skipped_windows > 20"),
)
"""Each with what the server is to see: a share or a gauge, where a given number of windows is too few if they are fast."""


def live_through_it(daemon: Daemon, job: Job, server: Prometheus) -> None:
    """Everything that goes wrong, and what an operator does."""
    daemon.ask(p.Set(changes={"dtype": "float16"}))
    for fault, expr in HELD:
        daemon.ask(p.Inject(fault=fault, windows=100_000))
        server.wait_for_series(f"min_over_time(({expr})[1s:250ms]) > 0", seconds=30)
        daemon.ask(p.Inject(fault=fault, windows=1))  # instead of all that are left
    for fault, windows, counter in COUNTED:
        wanted = metrics_of(daemon)[counter] + windows
        daemon.ask(p.Inject(fault=fault, windows=windows))
        until(f"{fault} on the page", lambda: metrics_of(daemon)[counter] >= wanted)  # noqa: B023  # called within the turn
    operate(daemon, job)
    os.kill(int(daemon.said("worker.started")[-1]["pid"]), signal.SIGKILL)
    daemon.hears("worker.became_ready", count=2)


def operate(daemon: Daemon, job: Job) -> None:
    """A change, a refusal, a checkpoint, a reload, and a reload of a file with an error."""
    daemon.ask(p.Set(changes={"optim.lr": "2e-3"}))
    with pytest.raises(CommandError):
        daemon.ask(p.Set(changes={"dtype": "float8"}))
    daemon.ask(p.Checkpoint())
    daemon.signal(signal.SIGHUP)
    daemon.hears("config.reloaded")
    good = job.file.read_text()
    job.file.write_text("[job")
    daemon.signal(signal.SIGHUP)
    daemon.hears("config.reload_refused")
    job.file.write_text(good)


class Answers:
    """A server that has something for the queries in `given`, and nothing for all others."""

    def __init__(self, *given: str) -> None:
        self._given = [filled(expr) for name, expr in asked().items() if name in given]

    def ever(self, expr: str, since: float) -> list[dict[str, object]]:
        """One series with one value, or none."""
        return [{"metric": {}, "values": [[since, "1"]]}] if expr in self._given else []


def test_an_excuse_for_what_gives_something_fails() -> None:
    """The reason no longer holds, and the next time that the query gives nothing nobody would hear of it."""
    excused = next(iter(EXCUSED))

    failed = judged(Answers(excused), 0.0).failed  # type: ignore[arg-type]  # has the one method that is asked

    assert [line for line in failed if line.startswith(f"{excused} is excused, but gave something")]


def test_an_excuse_for_what_is_gone_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A panel that was renamed would take its excuse along for ever."""
    monkeypatch.setitem(EXCUSED, "ampd-overview / A panel of last year / A", "it was slow")

    failed = judged(Answers(), 0.0).failed  # type: ignore[arg-type]  # has the one method that is asked

    assert "ampd-overview / A panel of last year / A is excused, but no longer there" in failed


def test_what_gives_nothing_needs_an_excuse() -> None:
    """Every query that is on no list fails by its name, and those on the list are told with their reason."""
    report = judged(Answers(), 0.0)  # type: ignore[arg-type]  # has the one method that is asked

    assert report.excused == EXCUSED | BY_LOAD
    assert len(report.failed) == len(asked()) - len(report.excused)


@needs_servers
@pytest.mark.timeout(300)
def test_every_query_tells_something_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels, variables, marks, recording rules and alerts, over one eventful run; the report is printed."""
    monkeypatch.setattr(daemons, "PATIENCE_SECONDS", 90.0)  # two starts of torch, beside a server
    begin = time.time()
    with digits_job(windows=1_000_000) as job:
        job.write(
            evaluate="every_windows = 100",
            amp='dtype = "float32"\ninit_scale = 1024.0\nmax_fp32_fallbacks = 5',
        )
        daemon = job.start()
        daemon.runs(20)
        with prometheus(
            tmp_path, targets=[daemon.status()["http"]], rules=rules_at(tmp_path, SCALE), scrape="250ms"
        ) as server:
            server.wait_for_series("rate(ampd_windows_total[5s]) > 0", seconds=30)
            live_through_it(daemon, job, server)
            server.wait_for_series("ampd_worker_restarts_total > 0", seconds=30)
            server.wait_for_series(
                "rate(ampd_windows_total[5s]) > 0 and on () ampd_worker_restarts_total > 0", seconds=30
            )
            report = judged(server, begin)
        daemon.ask(p.Stop(save=False))
        assert daemon.ends() == 0

    print(report)
    assert not report.failed, str(report)
