"""A job of several processes: rank 0 speaks for all, and torchrun may start them again behind the daemon's back."""

from __future__ import annotations

import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.lifecycle import JobState
from ampd.core.phase import Pulse
from ampd.core.worker_life import Worker
from tests.core.bench import Bench, job_config, snapshot

SAVED = m.Saved(window=5, path="ckpt-5", bytes=10, seconds=0.5, stall_seconds=0.1)


@pytest.fixture
def group() -> Bench:
    """Two ranks that run, with a budget of two restarts."""
    config = job_config(distributed__processes=2, restart__max_restarts=2)
    return Bench(config).running()


def peer(bench: Bench, report: m.Report) -> list[s.AnyInstruction]:
    """Rank 1 says something."""
    return bench.feed(s.Reported(now=bench.now, rank=1, report=report))


def test_another_rank_is_not_briefed() -> None:
    """Rank 0 gives its order to start to the others."""
    bench = Bench(job_config(distributed__processes=2)).boot()

    peer(bench, m.Hello(rank=1, pid=8))
    assert bench.orders == []
    bench.hello()

    assert [type(order) for order in bench.orders] == [m.Start]


def test_the_figures_of_every_rank_are_kept(group: Bench) -> None:
    """Windows are counted once, by rank 0; memory is each rank's own."""
    group.report(snapshot(5))
    peer(group, snapshot(7))

    assert {rank: each.window for rank, each in group.view.snapshots.items()} == {0: 5, 1: 7}
    assert group.view.counts.windows == 5


def test_ranks_that_speak_again_were_started_again(group: Bench) -> None:
    """torchrun replaced them all: they are briefed, and the restart is counted by its reason."""
    group.hello()

    assert group.view.state is JobState.STARTING
    assert group.view.restarts == {"rank_lost": 1}
    assert isinstance(group.orders[-1], m.Start)
    assert group.of(s.Kill) == []


def test_a_group_that_came_back_runs_on(group: Bench) -> None:
    """When it is ready the job runs as before."""
    group.hello()
    group.get_ready(5)

    assert group.view.state is JobState.RUNNING
    assert group.view.state_reason == "resumed at window 5"


def test_what_a_rank_left_with_is_told_to_the_next(group: Bench) -> None:
    """A rank that ran out of memory while gradients were summed has the journal divide before that window."""
    done = m.AppliedAction(seq=1, window=7, revision=1, action=m.Divide(parts=2), author="policy")
    peer(group, m.Applied(applied=done))
    peer(group, m.Applied(applied=done))  # a second rank that was short in the same window
    group.hello()

    assert group.view.told["window.split"] == 1
    taken = [record.entry.applied for record in group.of(s.Record) if isinstance(record.entry, s.Taken)]
    assert taken == [done]
    start = group.orders[-1]
    assert isinstance(start, m.Start)
    assert start.schedule == (done,)


def test_a_change_under_way_is_not_lost_with_a_rank(group: Bench) -> None:
    """An action that the lost ranks may not have carried out goes to their successors."""
    group.set()
    group.hello()

    assert [act.request_id for act in group.acts] == ["request-001", "request-001"]


def test_a_checkpoint_asked_for_is_refused_when_a_rank_is_lost(group: Bench) -> None:
    """The state that was to be saved is gone."""
    group.ask(p.Checkpoint())
    group.hello()

    assert group.refusal.code == "NOT_READY"


def test_a_group_that_is_lost_too_often_is_given_up(group: Bench) -> None:
    """More restarts in a row than restart.max_restarts, without a new checkpoint: killed, and the job has failed."""
    for _ in range(2):
        group.hello()
        group.get_ready()
    group.hello()

    assert group.of(s.Kill) == [s.Kill(gently=False)]
    group.die(-9)
    assert group.view.state is JobState.FAILED


def test_a_checkpoint_renews_the_budget(group: Bench) -> None:
    """What counts are losses in a row without one."""
    for _ in range(5):
        group.report(SAVED)
        group.hello()
        group.get_ready()

    assert group.view.restarts == {"rank_lost": 5}
    assert group.of(s.Kill) == []


def test_a_rank_that_is_lost_while_stopping_ends_the_run(group: Bench) -> None:
    """Nobody waits for a group that would only begin again."""
    group.ask(p.Stop())
    group.hello()

    assert group.of(s.Kill) == [s.Kill(gently=False)]


def test_the_reason_of_any_rank_is_the_result(group: Bench) -> None:
    """A rank that fails for a reason of its own tells it, whatever becomes of the others."""
    peer(group, m.Finished(result="failed", window=-1, message="no room on device 1", exit_code=1))

    assert group.view.state is JobState.FAILED
    assert group.view.result is not None
    assert group.view.result.message == "no room on device 1"


def test_one_process_that_repeats_itself_moves_nothing() -> None:
    """Without a group a second Hello is no news."""
    bench = Bench().running()
    bench.hello()

    assert bench.supervisor.run.worker is Worker.READY
    assert bench.view.restarts == {}


def look(group: Bench, *gone: int) -> list[s.AnyInstruction]:
    """A look at the ranks, of which some are gone."""
    return group.feed(s.Pulsed(now=group.now, pulse=Pulse(), elapsed_seconds=0.1, gone=gone))


def test_a_job_that_misses_a_rank_does_not_run(group: Bench) -> None:
    """From the moment that it is seen, and by name, until torchrun has started all ranks again; it is counted once."""
    look(group, 1)
    assert (str(group.view.state), group.view.state_reason) == ("recovering", "rank 1 lost")
    look(group, 1)

    group.hello()
    group.get_ready(5)

    assert group.view.state is JobState.RUNNING
    assert group.view.restarts == {"rank_lost": 1}
    assert len(group.view.lately.restarts) == 1


def test_a_group_that_is_not_started_again_is_counted_once(group: Bench) -> None:
    """torchrun gave up, or was lost with the rank: the daemon starts another, as it would have."""
    look(group, 0, 1)
    group.die(1)

    assert group.view.state is JobState.RECOVERING
    assert group.view.restarts == {"rank_lost": 1}


def test_a_rank_that_goes_while_the_job_stops_is_not_missed(group: Bench) -> None:
    """Stopping is what ends it."""
    group.ask(p.Stop())

    look(group, 1)

    assert group.view.state is JobState.STOPPING


def test_a_pause_outlives_a_rank_that_is_missed(group: Bench) -> None:
    """The ranks that come next are told to hold."""
    group.report(m.Holding(window=3, reason="asked for"))
    look(group, 1)
    group.hello()
    group.get_ready(5)

    assert any(isinstance(order, m.Pause) for order in group.orders[-2:])
