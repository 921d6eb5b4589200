"""The ring of events: consecutive, bounded, and honest about what it no longer has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core import past
from ampd.core.objections import Objection
from ampd.core.protocol import Code, Event, Events
from ampd.core.replies import Result
from ampd.core.ring import Ring


def event(seq: int) -> Event:
    return Event(boot="b", seq=seq, time=0.0, name="a.happened", fields={})


def ring(count: int, most: int = 5) -> Ring:
    """A ring after so many events."""
    made = Ring(most)
    for seq in range(1, count + 1):
        made.add(event(seq))
    return made


def numbers(result: Result | Objection) -> list[int]:
    assert isinstance(result, dict), result
    return [told["seq"] for told in result["events"]]


def test_a_new_ring_is_empty() -> None:
    """The first event will be number 1."""
    assert (ring(0).first, ring(0).last, ring(0).after(0, 10)) == (1, 0, ())


def test_a_hole_cannot_get_in() -> None:
    """Whoever numbers the events wrong hears of it at once."""
    with pytest.raises(AssertionError, match="event 3 after 1"):
        ring(1).add(event(3))


@given(count=st.integers(0, 12), since=st.integers(0, 12), most=st.integers(1, 6))
def test_what_is_kept_after_a_number(count: int, since: int, most: int) -> None:
    """The next ones in order, at most so many; all of them consecutive."""
    told = past.events(ring(count), "b", Events(since=since, most=most))

    oldest = max(1, count - 4)
    if since > count:
        assert isinstance(told, Objection)
        assert told.code is Code.BAD_VALUE
    elif since < oldest - 1:
        assert isinstance(told, Objection)
        assert told.code is Code.COMPACTED
        assert f"events {since + 1} to {oldest - 1} are gone" in told.message
    else:
        assert numbers(told) == list(range(since + 1, count + 1))[:most]


def test_without_a_number_all_that_is_kept_is_told() -> None:
    """From the oldest on, and the number of the newest."""
    told = past.events(ring(7), "b", Events())

    assert numbers(told) == [3, 4, 5, 6, 7]
    assert isinstance(told, dict)
    assert told["last"] == 7


def test_events_of_another_boot_are_gone() -> None:
    """Numbers begin anew with each boot, so those of another would be taken for ours."""
    told = past.events(ring(7), "b", Events(since=6, boot="a"))

    assert isinstance(told, Objection)
    assert (told.code, told.field) == (Code.COMPACTED, "boot")
