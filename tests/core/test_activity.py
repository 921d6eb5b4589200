"""Time by activity: sums over windows and over workers, and what one window takes."""

from __future__ import annotations

from ampd.core.activity import Activity, Sampled
from ampd.core.histogram import Distributions
from ampd.telemetry.readings import read
from tests.telemetry import views

NOTHING = dict.fromkeys(map(str, Activity), 0.0)


def sampled(*windows: dict[Activity, float]) -> Sampled:
    """What these windows add up to."""
    made = Sampled()
    for seconds in windows:
        made.add(seconds)
    return made


def test_every_activity_is_there_from_the_start() -> None:
    """A counter that appears at 1 has no increase."""
    assert Sampled().seconds == NOTHING


def test_a_window_takes_the_mean_of_those_that_were_sampled() -> None:
    """By activity."""
    both = sampled({Activity.FORWARD: 1.0, Activity.DATA: 0.5}, {Activity.FORWARD: 2.0})

    assert both.of_one == {**NOTHING, "forward": 1.5, "data": 0.25}


def test_nothing_is_said_of_a_window_before_one_was_sampled() -> None:
    """0 would look measured."""
    assert Sampled().of_one == {}


def test_two_workers_add_up_and_a_copy_stays() -> None:
    """What the dead worker was sampled at is kept; a snapshot on its way does not change."""
    loop = Distributions(sampled=sampled({Activity.BACKWARD: 2.0}))
    sent = loop.copy()
    loop.sampled.add({Activity.BACKWARD: 1.0})

    both = sent.plus(loop).sampled

    assert (both.windows, both.seconds["backward"]) == (3, 5.0)
    assert sent.sampled.windows == 1


def test_the_metrics_go_on_over_a_restart() -> None:
    """Past and present together, as all counters."""
    past = Distributions(sampled=sampled({Activity.FORWARD: 1.0}))
    now = views.snapshot(distributions=Distributions(sampled=sampled({Activity.FORWARD: 3.0})))

    readings = read(views.running(past_distributions=past, snapshots={0: now}))

    assert readings["ampd_windows_sampled_total"] == 2
    assert readings["ampd_sampled_window_seconds_total"] == {**NOTHING, "forward": 4.0}
