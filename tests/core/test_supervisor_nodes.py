"""A job of several nodes, seen from one of them: the leader takes changes, the others answer for themselves and follow."""

from __future__ import annotations

import msgspec
import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.group import Leader, Place
from ampd.core.lifecycle import JobState
from ampd.core.protocol import Code
from ampd.core.stimuli import TimerKind
from ampd.core.worker_life import Worker
from tests.core.bench import Bench, job_config, snapshot
from tests.core.test_supervisor_states import COMMANDS

NODES = {"distributed__nodes": 2, "distributed__rendezvous": "gpu1:29400"}
JOINED = m.Joined(first_rank=2, world=4, leader=Leader(host="gpu1", endpoint="tcp://gpu1:5555"))
ANSWERED = {"status", "get", "stats", "events", "hello"}


def placed(place: Place, leader: Leader | None = None, **keys: object) -> Bench:
    """A daemon of a job of two nodes."""
    bench = Bench(job_config(**NODES, **keys))
    bench.view.place, bench.view.leader = place, leader
    return bench


@pytest.fixture
def follower() -> Bench:
    """The second node, whose ranks run."""
    bench = placed(Place(host="gpu2", node="gpu2", leads=False), Leader(host="gpu1"))
    bench.boot()
    bench.hello()
    bench.report(JOINED)
    bench.get_ready()
    return bench


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [
        ("", ""),
        ("tcp://0.0.0.0:5555", "tcp://gpu1:5555"),
        ("tcp://[::]:5555", "tcp://gpu1:5555"),
        ("tcp://10.0.0.1:5555", "tcp://10.0.0.1:5555"),
    ],
)
def test_a_leader_says_where_it_is(listen: str, endpoint: str) -> None:
    """The order to start carries it to all nodes; where it listens everywhere, under its own name."""
    bench = placed(Place(host="gpu1", node="gpu1"), control__listen=listen).boot()
    bench.hello()

    (start,) = bench.orders
    assert isinstance(start, m.Start)
    assert start.leader == Leader(host="gpu1", endpoint=endpoint)


def test_a_job_of_one_node_has_no_leader() -> None:
    """Nobody follows, so nobody is told."""
    bench = Bench().boot()
    bench.hello()

    (start,) = bench.orders
    assert isinstance(start, m.Start) and start.leader is None


def test_the_ranks_of_a_follower_get_their_orders_from_rank_0(follower: Bench) -> None:
    """Its daemon gives none, and it runs all the same."""
    assert follower.orders == []
    assert follower.view.state is JobState.RUNNING
    assert (follower.view.first_rank, follower.view.world) == (2, 4)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ANSWERED])
def test_a_follower_refuses_what_is_the_leaders(follower: Bench, name: str) -> None:
    """With a code of its own, and with what to type."""
    follower.ask(COMMANDS[name])

    refusal = follower.refusal
    assert (refusal.code, refusal.retryable) == (Code.NOT_LEADER, False)
    assert "follows gpu1" in refusal.message
    assert refusal.hint == "ask there: ampctl --endpoint tcp://gpu1:5555"
    assert follower.orders == []


@pytest.mark.parametrize("name", sorted(ANSWERED))
def test_a_follower_answers_for_itself(follower: Bench, name: str) -> None:
    """What needs no journal is known on every node."""
    follower.report(snapshot(5))
    follower.ask(COMMANDS[name])

    assert isinstance(follower.reply, p.Done)


def test_before_the_nodes_meet_the_leader_is_whom_the_job_file_names() -> None:
    """And how to get there is said without an endpoint."""
    bench = placed(Place(host="gpu2", node="gpu2", leads=False), Leader(host="gpu1")).boot()
    bench.set()

    assert bench.refusal.hint == "ask there: run ampctl on gpu1"


def test_the_status_says_who_leads(follower: Bench) -> None:
    """Whoever asks the wrong node learns the right one."""
    follower.ask(p.Status())

    assert follower.result["node"] == "gpu2"
    assert follower.result["leader"] == {"host": "gpu1", "endpoint": "tcp://gpu1:5555"}


def test_a_change_is_seen_and_not_recorded(follower: Bench) -> None:
    """The journal is the leader's; what holds is known here too."""
    action = m.Configure(changes={"amp.dtype": "float16"})
    follower.apply(m.Act(request_id="elsewhere-1", action=action), window=10)

    assert follower.view.config.amp.dtype == "float16"
    assert follower.view.revision == 2
    assert follower.of(s.Record) == []


def test_a_job_file_that_is_read_again_changes_nothing_on_a_follower(follower: Bench) -> None:
    """The refusal names the leader, whose SIGHUP it takes."""
    follower.feed(s.Reloaded(now=follower.now, config=job_config(**NODES, optim__lr=0.5)))

    refused = [event for event in follower.events if event.name == "config.reload_refused"]
    assert "follows gpu1" in refused[0].fields["error"]


def test_a_signal_on_a_follower_stops_the_job(follower: Bench) -> None:
    """Its machine is going away, so all nodes save and stop: the order goes to its own ranks, which spread it."""
    follower.signal("terminate")
    assert follower.orders == [m.Stop(save=True)]

    follower.finish("stopped", window=7)
    follower.leave()

    assert [ending.code for ending in follower.exits] == [0]


def test_a_node_that_was_not_asked_stops_with_the_others(follower: Bench) -> None:
    """The job was stopped somewhere else."""
    follower.finish("stopped", window=7)
    follower.leave()

    assert follower.view.state is JobState.STOPPED
    assert [ending.code for ending in follower.exits] == [0]


def test_a_follower_never_gives_a_lost_rank_up(follower: Bench) -> None:
    """The leader knows of checkpoints, and counts for all."""
    for _ in range(10):
        follower.hello()
        follower.get_ready()

    assert follower.of(s.Kill) == []
    assert follower.view.restarts == {"rank_lost": 10}


def test_a_follower_whose_agent_dies_again_and_again_gives_up(follower: Bench) -> None:
    """Being ready renews its budget, since it is told of no checkpoint."""
    follower.die(1)
    follower.restart().get_ready()
    for _ in range(3):
        follower.die(1)
        follower.fire(TimerKind.BACKOFF)
    assert follower.exits == []

    follower.die(1)

    assert [ending.code for ending in follower.exits] == [1]


def test_a_job_of_several_nodes_is_a_group_with_one_process_on_each() -> None:
    """A rank that speaks again was started again by torchrun."""
    bench = placed(Place(host="gpu1", node="gpu1")).running()
    bench.hello()

    assert bench.supervisor.run.worker is Worker.BRIEFED
    assert bench.view.restarts == {"rank_lost": 1}


def test_the_place_is_plain_data() -> None:
    """What is told of the leader is what JSON can hold."""
    assert msgspec.json.decode(msgspec.json.encode(JOINED.leader), type=Leader) == JOINED.leader


def test_a_rank_that_others_have_started_is_not_started_again() -> None:
    """Whoever started all of them does that, with all of them."""
    bench = Bench(job_config(distributed__processes="env")).running()
    bench.die(1, "peer closed")

    assert bench.view.state is JobState.FAILED
    assert bench.exits[0].message.startswith("the worker crashed once, the last time with exit code 1")
    assert [ending.code for ending in bench.exits] == [1]


def test_a_rank_that_others_have_started_says_hello_once() -> None:
    """No torchrun of ours starts it again behind the daemon's back."""
    bench = Bench(job_config(distributed__processes="env")).running()
    bench.hello()

    assert bench.supervisor.run.worker is Worker.READY


LEFT = m.Applied(applied=m.AppliedAction(seq=3, window=9, revision=1, action=m.Divide(parts=2), author="policy", reason="no room"))  # fmt: skip


@pytest.mark.parametrize("rank", [0, 1])
def test_what_a_rank_of_a_follower_left_behind_gets_to_the_leader(follower: Bench, rank: int) -> None:
    """It ran out of memory in the middle of a sum and had to go: the next group does what it learned, all ranks together."""
    follower.feed(s.Reported(now=follower.now, rank=rank, report=LEFT))
    assert follower.orders == []

    follower.hello()

    (order,) = follower.orders
    assert isinstance(order, m.Act) and order.action == m.Divide(parts=2)
    assert (order.author, order.reason) == ("policy", "no room")


def test_what_was_left_behind_is_handed_on_until_it_is_done(follower: Bench) -> None:
    """A group that is lost before its first window has done nothing; then the journal has it."""
    follower.report(LEFT)
    follower.hello()
    follower.hello()
    (order, again) = follower.orders
    assert isinstance(order, m.Act) and order == again

    follower.get_ready(5)
    done = msgspec.structs.replace(LEFT.applied, request_id=order.request_id)
    follower.report(m.Applied(applied=done))
    follower.hello()

    assert len(follower.orders) == 2


def test_what_is_repeated_from_the_journal_was_not_left_behind(follower: Bench) -> None:
    """A worker that goes on has done it with all others."""
    follower.report(LEFT)
    follower.report(snapshot(10))
    follower.hello()
    follower.get_ready(10)

    assert follower.orders == []


def test_what_the_group_was_told_to_do_was_not_left_behind(follower: Bench) -> None:
    """It has the id of an order."""
    done = msgspec.structs.replace(LEFT.applied, request_id="node:divide-b-9")
    follower.report(m.Applied(applied=done))
    follower.hello()
    follower.get_ready(9)

    assert follower.orders == []


def test_a_leader_records_what_a_follower_hands_on() -> None:
    """No client waits for it."""
    bench = placed(Place(host="gpu1", node="gpu1")).running()
    done = msgspec.structs.replace(LEFT.applied, request_id="node:divide-b-9")
    bench.report(m.Applied(applied=done))

    (record,) = bench.of(s.Record)
    assert isinstance(record.entry, s.Taken) and record.entry.applied == done and record.entry.reply is None
