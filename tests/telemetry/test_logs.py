"""Log lines: JSON for collectors, short ones for people, a budget, and a stream that may break."""

from __future__ import annotations

import io
import json
import logging
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ampd.core import messages as m
from ampd.core.change import Difference
from ampd.core.events import describe, level_of
from ampd.core.ledger import Cause
from ampd.core.precision import Precision
from ampd.core.protocol import Event
from ampd.telemetry import logs
from tests.telemetry import views

AT = views.STARTED + 0.25
FELL_BACK = m.FellBack(window=18, cause=Cause.FORWARD, tried=Precision.FLOAT16, applied_at=Precision.FLOAT32)


def event(report: m.Report, at: float = AT) -> Event:
    """The event that the supervisor would publish for a report."""
    name, fields = describe(report)
    return Event(boot="b00t", seq=1, time=at, name=name, fields=fields)


def logged(report: m.Report, form: logs.Format = "json", level: str = "info") -> str:
    """What one report leaves in a log."""
    stream = io.StringIO()
    logs.configure(level, form, stream, job="bytes")
    logs.log_event(event(report), level_of(report))
    return stream.getvalue()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """A JSON log as plain data."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_time_level_event_job_and_flat_facts() -> None:
    """One line, in UTC, the event's own time, keys in this order."""
    assert json.loads(logged(FELL_BACK)) == {
        "time": "2027-01-15T08:00:00.250Z", "level": "warning", "event": "window.fell_back", "job": "bytes",
        "window": 18, "cause": "forward", "tried": "float16", "applied_at": "float32",
    }  # fmt: skip


def test_a_terminal_line_is_short_and_for_people() -> None:
    """Time of day, how bad, what, and the facts; no braces, no quotes."""
    line = logged(FELL_BACK, "terminal")

    assert line.count("\n") == 1
    assert "warning: window.fell_back  window=18  cause=forward  tried=float16  applied_at=float32" in line


def test_off_a_terminal_auto_is_json() -> None:
    """A pipe, a file and the journal get lines that a collector can index."""
    assert json.loads(logged(FELL_BACK, "auto"))["event"] == "window.fell_back"


def test_nested_facts_are_flat_and_changes_are_words() -> None:
    """A collector indexes dotted keys; `config` is a whole job file and stays out."""
    action = m.AppliedAction(seq=1, window=7, revision=2, action=m.Configure(changes={"optim.lr": 0.01}))
    moved = (Difference(key="optim.lr", old=0.1, new=0.01),)

    applied = json.loads(logged(m.Applied(applied=action, differences=moved)))
    ready = json.loads(logged(views.ready()))

    assert applied["window"] == 7
    assert applied["changes"] == ["optim.lr 0.1 -> 0.01"]
    assert ready["precision"] == "float16"
    assert not any(key.startswith("config") for key in ready)


def test_a_figure_that_is_not_finite_is_still_json() -> None:
    """NaN is not JSON: it becomes null, and the line stays readable to every parser."""
    line = logged(m.Evaluated(window=1, figures={"loss": math.nan}, seconds=1.0))

    assert json.loads(line, parse_constant=pytest.fail)["figures.loss"] is None


def test_a_field_cannot_pass_for_the_lines_own() -> None:
    """A fact called `level` is kept beside the level, not in its place."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logs.log("worker.warned", "warning", {"level": "fine", "event": "nothing"}, at=AT)

    (line,) = lines(stream)
    assert (line["level"], line["event"]) == ("warning", "worker.warned")
    assert (line["field.level"], line["field.event"]) == ("fine", "nothing")


@example(text="\x85 \u2028 \x9b31m \x7f", form="json")
@example(text="\x85 \u2028 \x9b31m \x1b[2J", form="terminal")
@given(text=st.text(max_size=60), form=st.sampled_from(["json", "terminal"]))
def test_no_text_can_forge_a_line(text: str, form: logs.Format) -> None:
    """Line breaks and control characters in a fact stay within its line."""
    line = logged(m.Warned(topic="x", message=text), form)

    assert len(line.splitlines()) == 1
    assert not set(line.rstrip("\n")).intersection("\x1b\x9b\x7f")


def test_less_severe_events_are_left_out_and_the_level_is_live() -> None:
    """`ampctl set log.level` takes effect at once."""
    stream = io.StringIO()
    logs.configure("warning", "json", stream)
    logs.log("job.resumed", "info", {}, at=AT)
    logs.set_level("debug")
    logs.log("job.paused", "debug", {}, at=AT)

    assert [line["event"] for line in lines(stream)] == ["job.paused"]


class Clock:
    """Time that moves when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def storm(output: logs.Output, count: int, level: str = "warning") -> None:
    """The same event many times."""
    for window in range(count):
        output.write("window.fell_back", level, {"window": window}, AT)


def test_a_storm_of_one_event_is_held_back_and_said() -> None:
    """A budget of lines for each name and interval; afterwards one line says how many were not written."""
    clock, stream = Clock(), io.StringIO()
    output = logs.Output("info", "json", stream, budget=logs.Budget(lines=3, seconds=10, clock=clock))

    storm(output, 100)
    output.write("checkpoint.saved", "info", {}, AT)
    clock.now += 10
    output.write("checkpoint.saved", "info", {}, AT)

    names = [line["event"] for line in lines(stream)]
    assert names == [*["window.fell_back"] * 3, "checkpoint.saved", "log.held_back", "checkpoint.saved"]
    assert (lines(stream)[4]["name"], lines(stream)[4]["lines"]) == ("window.fell_back", 97)


def test_a_name_has_its_budget_again_after_the_interval() -> None:
    """Holding back ends with the storm."""
    clock, stream = Clock(), io.StringIO()
    output = logs.Output("info", "json", stream, budget=logs.Budget(lines=3, seconds=10, clock=clock))

    storm(output, 5)
    clock.now += 11
    storm(output, 1)

    assert [line["event"] for line in lines(stream)][3:] == ["log.held_back", "window.fell_back"]


def test_errors_are_never_held_back() -> None:
    """What ends a run is always written."""
    stream = io.StringIO()
    storm(logs.Output("info", "json", stream, budget=logs.Budget(lines=1)), 50, "error")

    assert len(lines(stream)) == 50


class Breaking(io.StringIO):
    """A pipe whose reader goes away and comes back."""

    is_broken = False

    def write(self, text: str) -> int:
        if self.is_broken:
            raise BrokenPipeError
        return super().write(text)


def test_a_broken_stream_costs_lines_and_never_the_job() -> None:
    """Lines that could not be written are counted on the first that can."""
    stream = Breaking()
    output = logs.Output("info", "json", stream)

    stream.is_broken = True
    storm(output, 2)
    stream.is_broken = False
    storm(output, 1)

    assert [line["lost_lines"] for line in lines(stream)] == [2]


def test_a_librarys_complaint_becomes_a_line_of_ours() -> None:
    """Its warnings are not swallowed, and do not reach the terminal in a form of their own."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logs.adopt("some.library")

    logging.getLogger("some.library").info("all is well")
    logging.getLogger("some.library").error("cannot do %s", "that")

    (line,) = lines(stream)
    assert (line["event"], line["level"], line["message"]) == (
        "library.complained",
        "error",
        "cannot do that",
    )
