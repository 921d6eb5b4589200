"""The campaigns in a small size, each with a fresh seed that a failure shows."""

from __future__ import annotations

import pytest

from ampd.control.follow import Lost, Told
from ampd.core.protocol import Event
from tests.campaigns import (
    clocks,
    compare_and_set,
    corruptions,
    events,
    exactly_once,
    kills,
    never_hangs,
    reloads,
    signals,
    soak,
    trials,
    two_daemons,
    wire_fuzz,
)
from tests.story.wall_clock import needs_compiler


@pytest.mark.timeout(300)
def test_a_run_that_is_killed_is_exact(seed: int) -> None:
    """Worker and supervisor killed while the job is changed: the same as if it had never been."""
    kills.case(seed, kills=kills.MANY_KILLS)


def test_every_corruption_is_found(seed: int) -> None:
    """A damaged checkpoint is set aside, and the one before it used."""
    corruptions.case(seed, corruptions=2 * len(corruptions.DAMAGES))


def test_every_request_is_carried_out_once(seed: int) -> None:
    """Sent up to five times, with daemons killed in between."""
    exactly_once.case(seed, count=8)


def test_no_update_is_lost(seed: int) -> None:
    """Eight clients count together by compare-and-set."""
    compare_and_set.case(seed, increments=3)


def test_one_of_two_daemons_runs(seed: int) -> None:
    """The other names it and leaves."""
    two_daemons.case(seed, races=2)


def test_every_trial_ends_as_it_must(seed: int) -> None:
    """Bad changes are reverted, benign ones kept, and a run repeated from the journal is the same."""
    assert trials.case(seed, count=3, kills=False)["bad"] <= 3


def test_every_hole_in_the_events_is_found(seed: int) -> None:
    """Slow followers, lost events, a short memory: told whole, or told what is missing."""
    events.case(seed, count=1500)


def test_ampctl_never_hangs(seed: int) -> None:
    """Dead, starting, stopped, hung, shutting down, wrong key, black hole: told which, in time."""
    never_hangs.case(seed)


def test_malformed_traffic_stops_nobody(seed: int) -> None:
    """Damaged requests, bombs, junk and broken handshakes, by both ways in."""
    wire_fuzz.case(seed)


@needs_compiler
@pytest.mark.timeout(300)
def test_steps_of_the_wall_clock_are_not_noticed(seed: int) -> None:
    """By hours and years, back and forth, with a hang in between."""
    clocks.case(seed, steps=3, late_seconds=10.0)  # a promise of one second is for a machine of its own


def test_a_daemon_does_not_grow(seed: int) -> None:
    """Commands, scrapes, reloads and killed workers: files and threads stay as they are."""
    soak.case(seed, seconds=5)


def test_signals_at_random_moments(seed: int) -> None:
    """Several, in any order: ended in order, and the job goes on."""
    signals.case(seed)


def test_damaged_job_files_change_nothing(seed: int) -> None:
    """Each is refused, and the job trains on."""
    reloads.case(seed, mutants=20)


def _event(seq: int) -> Event:
    return Event(boot="b", seq=seq, time=0.0, name="a.happened", fields={})


@pytest.mark.parametrize(
    "told",
    [
        [_event(1), _event(3)],
        [_event(1), _event(1), _event(2), _event(3)],
        [_event(1), Lost(boot="b", first=3, last=3)],
        [_event(1), _event(2)],
    ],
    ids=["hole", "twice", "gap in a gap", "tail"],
)
def test_the_campaign_would_notice(told: list[Told]) -> None:
    """A stream with a hole, a repetition or a missing tail fails it."""
    with pytest.raises(AssertionError):
        events.check(told, 3)
