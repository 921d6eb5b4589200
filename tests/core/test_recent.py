"""The last events: few, in order, and a storm does not push out what explains it."""

from __future__ import annotations

from typing import Any

from ampd.core.bulletin import Bulletin
from ampd.core.events import NAMES
from ampd.core.protocol import Event
from ampd.core.recent import FOLDED, MOST, Recent, facts
from tests.core.bench import job_view


def event(seq: int, name: str, **fields: Any) -> Event:
    return Event(boot="b", seq=seq, time=1000.0 + seq, name=name, fields=fields)


def names(recent: Recent) -> list[tuple[str, int]]:
    return [(told.event.name, told.times) for told in recent.lines]


def test_a_storm_is_one_line_with_a_count() -> None:
    """The change of precision before a thousand fallbacks is still to be seen."""
    recent = Recent()
    recent.add(event(1, "config.applied"), "info")
    for seq in range(2, 1002):
        recent.add(event(seq, "window.fell_back" if seq % 2 else "scale.moved"), "warning")

    assert names(recent) == [("config.applied", 1), ("scale.moved", 500), ("window.fell_back", 500)]
    assert recent.lines[-1].event.seq == 1001


def test_a_limit_that_every_epoch_passes_is_one_line() -> None:
    """A bad night has an epoch every few minutes; what happened besides must not drown in them."""
    recent = Recent()
    for seq in range(100):
        recent.add(event(seq, "config.applied" if seq == 50 else "fallbacks.reached_limit"), "warning")

    assert names(recent) == [("config.applied", 1), ("fallbacks.reached_limit", 99)]


def test_only_the_last_lines_are_kept() -> None:
    """Memory is bounded, and so is the answer to `ampctl status`."""
    recent = Recent()
    for seq in range(100):
        recent.add(event(seq, "config.applied"), "info")

    assert [told.event.seq for told in recent.lines] == list(range(100 - MOST, 100))


def test_what_is_folded_is_what_comes_with_windows() -> None:
    """The names are those of real events: a changed name would end the folding in silence."""
    assert set(NAMES.values()) >= FOLDED


def test_every_event_is_taken_in() -> None:
    """Whatever the bulletin tells is a line, with how severe it is."""
    view = job_view()
    Bulletin(view).tell("stop.hurried", 1001.0, level="warning")

    assert [(told.event.name, told.level) for told in view.recent.lines] == [("stop.hurried", "warning")]


def test_facts_are_what_says_something() -> None:
    """Empty fields, whole configurations and ids of requests are left to programs."""
    told = event(1, "x.y", window=0, reason="", path=None, config={"a": 1}, request_id="r", cause="data")

    assert facts(told) == {"window": 0, "cause": "data"}
