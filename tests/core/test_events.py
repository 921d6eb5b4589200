"""Event names: one for every report but the snapshot, constant and in one form."""

from __future__ import annotations

import re
import typing

import pytest

from ampd.core import messages as m
from ampd.core.change import Difference
from ampd.core.events import NAMES, describe, level_of
from ampd.core.ledger import Cause
from ampd.core.precision import Precision

REPORTS: tuple[type[m.Message], ...] = typing.get_args(m.Report)


def test_every_report_but_the_snapshot_is_an_event() -> None:
    """Nothing that happens is without a name, and a stream of figures is not an event."""
    assert set(NAMES) == set(REPORTS) - {m.Snapshot}


def test_names_are_unique_and_of_one_form() -> None:
    """`subject.past_verb`: two words that a log can be searched for."""
    assert len(set(NAMES.values())) == len(NAMES)
    assert [name for name in NAMES.values() if not re.fullmatch(r"[a-z]+\.[a-z_0-9]+", name)] == []


def test_facts_are_fields() -> None:
    """A report becomes a constant name and plain fields; its tag is not one of them."""
    report = m.FellBack(window=7, cause=Cause.FORWARD, tried=Precision.FLOAT16, applied_at=None)

    assert describe(report) == (
        "window.fell_back",
        {"window": 7, "cause": "forward", "tried": "float16", "applied_at": None},
    )


@pytest.mark.parametrize(
    ("report", "level"),
    [
        (m.Hello(rank=0, pid=1), "info"),
        (m.Skipped(window=1, cause=Cause.DATA), "warning"),
        (m.SaveFailed(window=1, message="full"), "warning"),
        (m.Warned(topic="t", message="m"), "warning"),
        (m.ScaleMoved(window=1, old=2.0, new=1.0), "info"),
        (m.Finished(result="completed", window=9), "info"),
        (m.Finished(result="stopped", window=9), "info"),
        (m.Finished(result="failed", window=9), "error"),
    ],
)
def test_an_event_is_as_severe_as_what_happened(report: m.Report, level: str) -> None:
    """Trouble that was handled is a warning; only a failed run is an error."""
    assert level_of(report) == level


def test_a_change_reads_as_one_line() -> None:
    """Who changed what, when and why; no nesting, nothing empty."""
    action = m.Configure(changes={"amp.dtype": "float16"})
    applied = m.AppliedAction(
        seq=1, window=8, revision=2, action=action, request_id="r", author="ann", reason="why not"
    )
    moved = (Difference(key="amp.dtype", old="auto", new="float16"),)

    assert describe(m.Applied(applied=applied, differences=moved)) == (
        "config.applied",
        {
            "seq": 1,
            "window": 8,
            "revision": 2,
            "author": "ann",
            "reason": "why not",
            "changes": ["amp.dtype auto -> float16"],
        },
    )


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (m.Inject(fault="oom"), "fault.injected"),
        (m.Reset(what="stats"), "statistics.reset"),
        (m.Avoid(cause=Cause.DATA), "window.avoided"),
        (m.Divide(parts=2), "window.divided"),
    ],
)
def test_other_actions_have_names_of_their_own(action: m.Action, name: str) -> None:
    """A fault is no configuration, and nobody should read it as one."""
    assert describe(m.Applied(applied=m.AppliedAction(seq=1, window=8, revision=1, action=action)))[0] == name
