"""The pages about the past: every fact in its place, and plain text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ampd.cli import past_pages
from ampd.core.protocol import Done

MOVED = {"key": "amp.dtype", "old": "float16", "new": "bfloat16"}
REVISION = {
    "revision": 2,
    "window": 184,
    "time": 0.0,
    "author": "ann",
    "reason": "fp16 fails",
    "changes": [MOVED],
}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def answer(**result: Any) -> Done:
    return Done(id="i" * 8, boot="b", revision=3, window=184, result=result)


def test_history_says_who_when_and_why() -> None:
    """A line for the revision, a line for each key; without a reason there are no quotes."""
    page = past_pages.history(
        answer(revisions=[REVISION, REVISION | {"revision": 3, "reason": "", "changes": []}])
    )

    assert page.splitlines() == [
        'revision 2  window 184, 1970-01-01 00:00:00, by ann: "fp16 fails"',
        "  amp.dtype float16 -> bfloat16",
        "revision 3  window 184, 1970-01-01 00:00:00, by ann",
        "  moved nothing",
    ]


def test_the_overlay_is_a_table() -> None:
    """What the file says, what holds, and who made it so."""
    row = {
        "key": "optim.lr",
        "job_file": 0.001,
        "value": 0.5,
        "revision": 2,
        "author": "ann",
        "reason": "flat",
    }

    assert past_pages.overlay(answer(changes=[row])).splitlines() == [
        "KEY       JOB FILE  NOW  SINCE",
        'optim.lr  0.001     0.5  revision 2, by ann: "flat"',
    ]


def test_an_event_is_one_line() -> None:
    """Number, time, name and its facts; a long fact is cut."""
    told = {
        "boot": "b",
        "seq": 7,
        "time": 0.0,
        "name": "worker.died",
        "fields": {"reason": "killed", "last": "x" * 300},
    }

    line = past_pages.event(told)

    assert line.startswith("     7  1970-01-01 00:00:00  worker.died             reason=killed  last=xxx")
    assert line.endswith("x...")
    assert "\n" not in line


def test_no_event_is_said() -> None:
    """An empty answer is not an empty page."""
    assert past_pages.events(answer(events=[], last=0)) == "no event yet"
