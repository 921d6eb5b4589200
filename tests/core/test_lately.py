"""What was counted lately: exact over minutes, bounded over months, and forgetful."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.lately import LONGEST_SECONDS, STEP_SECONDS, Lately, Tally
from ampd.core.ledger import Counts

AT = 1_800_000_000.0


def counts(windows: int, fallbacks: int = 0, lost: int = 0) -> Counts:
    """A ledger in which these many windows fell back, and were lost in both ways."""
    return Counts(
        windows=windows, fp32_fallbacks={"scale": fallbacks}, skipped={"data": lost - lost // 2}, quarantined=lost // 2
    )  # fmt: skip


def followed(seconds: int, *, per_second: int = 4, bad: range = range(0)) -> Lately:
    """A job with four snapshots a second, in which each window of the seconds in `bad` fell back."""
    lately, fallbacks = Lately(), 0
    for step in range(seconds * 4):
        fallbacks += per_second // 4 * (step // 4 in bad)
        lately.add(AT + step / 4, counts(step * per_second // 4, fallbacks))
    return lately


def test_a_tally_is_of_every_cause_and_both_ways_to_lose() -> None:
    """Skipped and quarantined windows are lost alike."""
    assert Tally.of(counts(10, fallbacks=2, lost=5)) == Tally(windows=10, fallbacks=2, lost=5)


def test_the_last_minutes_are_told_apart_from_those_before() -> None:
    """A bad minute counts within five minutes of it, to within one step, and not later."""
    lately = followed(1200, bad=range(840, 900))
    recent = lately.between(AT + 900, AT + 1200)
    during = lately.between(AT + 840 - STEP_SECONDS, AT + 900 + STEP_SECONDS)

    assert recent.fallbacks <= 4 * STEP_SECONDS
    assert during.fallbacks == 240
    assert recent.windows == pytest.approx(1200, abs=4 * STEP_SECONDS)


def test_memory_is_bounded_however_long_a_run_is() -> None:
    """Three hours at four snapshots a second."""
    lately = followed(10_800)

    assert len(lately.times) == len(lately.tallies) <= LONGEST_SECONDS / STEP_SECONDS + 2
    assert lately.times[0] >= AT + 10_800 - 1 - LONGEST_SECONDS


def test_the_newest_count_is_always_there() -> None:
    """A step is for what is kept; what happened a moment ago counts at once."""
    lately = followed(21, bad=range(20, 21))

    assert lately.between(AT, AT + 21).fallbacks == 4


def test_a_clock_that_is_set_back_begins_anew() -> None:
    """Marks in the future would hide what happens now."""
    lately = followed(100)
    lately.add(AT - 50, counts(500))
    lately.add(AT - 40, counts(520, fallbacks=3))

    assert lately.between(AT - 60, AT - 40) == Tally(windows=20, fallbacks=3)


def test_a_young_job_says_that_it_is_young() -> None:
    """There is no hour before to compare with."""
    lately = followed(60)

    assert lately.covers(AT)
    assert not lately.covers(AT - 1)
    assert not Lately().covers(AT)


def test_before_the_first_mark_nothing_was_counted() -> None:
    """Nothing is made up, and nothing is divided by 0."""
    before = followed(60).between(AT - 100, AT - 50)

    assert (before, before.fallback_ratio, before.lost_ratio) == (Tally(), 0.0, 0.0)


def test_restarts_are_forgotten_with_their_hour() -> None:
    """Those that a judgement may still ask for are kept."""
    lately = Lately()
    for at in (0.0, 60.0, LONGEST_SECONDS + 30):
        lately.restarted(AT + at)

    assert lately.restarts == [AT + 60, AT + LONGEST_SECONDS + 30]


def test_failed_saves_are_forgotten_with_their_hour_too() -> None:
    """And a clock that was set back leaves none in the future."""
    lately = Lately()
    for at in (0.0, LONGEST_SECONDS + 30, LONGEST_SECONDS):
        lately.failed_to_save(AT + at)

    assert lately.failed_saves == [AT + LONGEST_SECONDS]


@given(st.lists(st.tuples(st.floats(-100, 4000), st.integers(0, 50)), max_size=60), st.floats(-4000, 4000))
def test_whatever_the_clock_does_no_count_is_negative(steps: list[tuple[float, int]], span: float) -> None:
    """Times stay in order, marks stay in pairs, and a stretch never holds more than was counted."""
    lately, now, windows = Lately(), AT, 0
    for move, done in steps:
        now, windows = now + move, windows + done
        lately.add(now, counts(windows, fallbacks=windows // 2))

    found = lately.between(now - span, now)
    assert lately.times == sorted(lately.times)
    assert len(lately.times) == len(lately.tallies)
    assert 0 <= found.fallbacks <= found.windows <= windows
