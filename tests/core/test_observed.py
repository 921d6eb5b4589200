"""What the supervisor counts of what it is told, so that /metrics can show it."""

from __future__ import annotations

import msgspec
import pytest

from ampd.core import messages as m
from ampd.core import replies
from ampd.core import stimuli as s
from ampd.core.histogram import Distributions
from ampd.core.observed import observe, worked
from ampd.core.phase import Pulse
from ampd.core.precision import Choice, Precision
from ampd.core.rate import Rate
from tests.core.bench import Bench, job_view, ready, snapshot


def applied(precision: Precision, revision: int = 2) -> m.Applied:
    """A change of the configuration after which first attempts run at this precision."""
    action = m.Configure(changes={"amp.dtype": precision.value})
    done = m.AppliedAction(seq=revision - 1, window=1, revision=revision, action=action)
    return m.Applied(applied=done, choice=Choice(precision=precision, reason="named"))


def timed(*seconds: float) -> m.Snapshot:
    """A snapshot of a worker whose windows took these seconds."""
    counted = Distributions()
    for each in seconds:
        counted.window_seconds.add(each)
    return msgspec.structs.replace(snapshot(3), distributions=counted)


@pytest.mark.parametrize(
    ("report", "name"),
    [
        (m.Widened(window=1, module="head", location="model.py:3"), "module.widened"),
        (m.Split(window=1, parts=2, message="out of memory"), "window.split"),
        (m.Diverged(window=1, ranks=(1,), parameter="head.weight"), "ranks.diverged"),
        (m.ScaleStuck(window=1, scale=1.0), "scale.stuck"),
    ],
)
def test_what_happened_is_counted_by_its_name(bench: Bench, report: m.Report, name: str) -> None:
    """Twice told is twice counted; what was not told has no entry."""
    bench.running().report(report)
    bench.report(report)

    assert bench.view.told[name] == 2
    assert sum(bench.view.told.values()) == bench.view.events


def test_events_are_counted_by_how_severe_they_are(bench: Bench) -> None:
    """The sum over levels is the number of the last event."""
    bench.running().report(m.Warned(topic="t", message="m"))
    bench.finish("failed")

    levels = bench.view.levels
    assert (levels["warning"], levels["error"]) == (1, 2)  # its last report, and the move to `failed`
    assert sum(levels.values()) == bench.view.events


def test_a_reload_and_a_refused_one_are_counted(bench: Bench) -> None:
    """An edited job file that is not taken over must be seen by more than the log."""
    bench.running()
    bench.feed(s.Reloaded(now=bench.now, config=bench.view.config))
    bench.feed(s.Reloaded(now=bench.now, error="line 3: no such key"))

    assert bench.view.told["config.reloaded"] == bench.view.told["config.reload_refused"] == 1


def test_events_that_a_worker_dropped_add_up(bench: Bench) -> None:
    """Each report is one gap."""
    bench.running().report(m.Lost(events=100))
    bench.report(m.Lost(events=7))

    assert bench.view.events_lost == 107


def test_histograms_go_on_over_a_worker_restart(bench: Bench) -> None:
    """Past and present add up; a snapshot replaces the one before it and does not come on top."""
    bench.running().report(timed(0.2))
    bench.report(timed(0.2, 0.3))
    bench.die()
    bench.restart().get_ready()
    bench.report(timed(0.4))

    counted = bench.view.distributions.window_seconds
    assert counted.cumulative[-1] == 3
    assert counted.total == pytest.approx(0.9)


def test_each_checkpoint_is_timed(bench: Bench) -> None:
    """By what its writer says that it took."""
    for seconds in (0.5, 2.0):
        bench.running() if not bench.view.checkpoints else None
        bench.report(m.Saved(window=1, path="p", bytes=1, seconds=seconds, stall_seconds=0.1))

    assert bench.view.checkpoint_seconds.total == 2.5
    assert bench.view.checkpoint_seconds.cumulative[-1] == bench.view.checkpoints == 2


def test_a_rank_is_heard_with_each_report(bench: Bench) -> None:
    """Silence is what a watcher measures."""
    bench.running()
    bench.now += 5
    bench.report(snapshot(1))

    assert bench.view.heard == {0: bench.now}


def test_a_change_of_precision_is_counted_where_it_moved(bench: Bench) -> None:
    """By what it changed to; the same again is no change."""
    bench.running()
    assert bench.view.choice is not None
    was = bench.view.choice.precision
    to = Precision.FLOAT16 if was is not Precision.FLOAT16 else Precision.BFLOAT16

    bench.report(applied(to))
    bench.report(applied(to, revision=3))
    bench.report(applied(was, revision=4))

    assert bench.view.precision_changes == {to.value: 1, was.value: 1}


def test_time_in_each_state_adds_up_to_the_life_of_the_daemon(bench: Bench) -> None:
    """A state that comes back goes on, and so it is with uptime."""
    bench.boot()
    _look(bench, 3)
    bench.hello()
    bench.get_ready()
    _look(bench, 10)
    bench.die()
    _look(bench, 2)
    bench.restart().get_ready()
    _look(bench, 5)

    assert bench.view.state_seconds == {"starting": 3.0, "running": 15.0, "recovering": 2.0}
    assert replies.status(bench.view, Rate(), bench.now)["uptime_seconds"] == 20.0


def test_a_wall_clock_that_steps_gives_and_takes_no_time(bench: Bench) -> None:
    """Time in a state is what the daemon observed, whatever the wall clock says meanwhile."""
    for step in (3600, -7200, 0, 3.15e7):
        bench.now += step
        _look(bench, 1)

    assert bench.view.state_seconds == {"starting": 4.0}


def _look(bench: Bench, seconds: float) -> None:
    bench.feed(s.Pulsed(now=bench.now, pulse=Pulse(), elapsed_seconds=seconds))


def test_the_work_of_ranks_outlives_their_processes() -> None:
    """Counters of /metrics never run backwards: what ranks worked before a restart is added to what they work now."""
    view = job_view()
    config = view.config
    for seconds in (2.0, 3.0):
        observe(view, 0, ready(config), now=1.0)
        for rank in range(2):
            figures = msgspec.structs.replace(snapshot(5), rank=rank, worked=seconds + rank)
            observe(view, rank, figures, now=2.0)

    assert worked(view) == {0: 5.0, 1: 7.0}


@pytest.mark.parametrize(("told", "shown"), [(0.25, 0.25), (None, 0.1)])
def test_a_change_is_seen_before_the_next_snapshot(bench: Bench, told: float | None, shown: float) -> None:
    """Its report has the rate that holds since; a program that keeps its own tells none, and the last one stands."""
    bench.running().report(msgspec.structs.replace(snapshot(3), lr=0.1))
    change = m.Configure(changes={"optim.lr": 0.25})
    done = m.AppliedAction(seq=1, window=4, revision=2, action=change)

    bench.report(m.Applied(applied=done, lr=told))

    last = bench.view.snapshot
    assert last is not None
    assert (last.window, last.revision, last.lr) == (4, 2, shown)
