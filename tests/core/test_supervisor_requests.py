"""Requests: answered at once, recorded before sent, answered when true, each exactly once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.flights import MOST_IN_FLIGHT
from ampd.core.lifecycle import JobState
from ampd.core.protocol import Code
from ampd.core.trouble import Trouble
from tests.core.bench import Bench, job_config, snapshot

SET = p.Set(changes={"amp.dtype": "float16"})


def _saved(request_id: str) -> m.Saved:
    return m.Saved(window=5, path="ckpt-5", bytes=10, seconds=0.5, stall_seconds=0.1, request_id=request_id)


# Changes.


def test_a_change_is_answered_after_it_took_effect(bench: Bench) -> None:
    """The reply has the revision, the window and old -> new, and comes when they are true."""
    bench.running().set()
    assert not bench.replies

    bench.apply(bench.acts[0], window=184, revision=2)

    assert isinstance(bench.reply, p.Done)
    assert (bench.reply.revision, bench.reply.window) == (2, 184)
    assert bench.result == {
        "changes": [{"key": "amp.dtype", "old": "auto", "new": "float16"}],
        "dry_run": False,
        "trial": None,
    }
    assert bench.view.config.amp.dtype == "float16"


def test_a_change_waits_for_its_record(make_bench: Callable[..., Bench]) -> None:
    """On disk before it is sent, and its outcome on disk before it is answered."""
    bench = make_bench(writes=False).running()
    bench.set()
    assert not bench.acts
    bench.write()
    bench.apply(bench.acts[0])
    assert not bench.replies

    bench.write()

    assert isinstance(bench.reply, p.Done)


def test_a_change_that_cannot_be_recorded_is_not_made(make_bench: Callable[..., Bench]) -> None:
    """A full disk refuses the command; the loop never hears of it."""
    bench = make_bench(writes=False).running()
    bench.set()

    bench.write(error="No space left on device")

    assert bench.refusal.code is Code.APPLY_FAILED
    assert "No space left" in bench.refusal.message
    assert not bench.acts


def test_a_change_whose_outcome_cannot_be_recorded_says_so(make_bench: Callable[..., Bench]) -> None:
    """It took effect and a crash would forget it: neither done nor undone may be claimed."""
    bench = make_bench(writes=False).running()
    bench.set()
    bench.write()
    bench.apply(bench.acts[0])

    bench.write(error="I/O error")

    assert bench.refusal.code is Code.APPLY_FAILED
    assert "took effect at window 10" in bench.refusal.message


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"amp.dtyp": "float16"}, Code.UNKNOWN_KEY, "amp.dtyp"),
        ({"name": "other"}, Code.UNKNOWN_KEY, "name"),
        ({"batch.size": "64"}, Code.IMMUTABLE, "batch.size"),
        ({"amp.dtype": "fp16"}, Code.BAD_VALUE, "amp.dtype"),
        ({"amp.growth_factor": "0.5"}, Code.BAD_VALUE, "amp.growth_factor"),
        ({"amp.min_scale": "1e9"}, Code.BAD_VALUE, "amp.min_scale"),
        ({"dtype": "float16", "amp.dtype": "float32"}, Code.BAD_VALUE, "amp.dtype"),
    ],
)
def test_a_bad_change_is_refused_at_once(
    bench: Bench, changes: dict[str, str], code: Code, field: str
) -> None:
    """Nothing is recorded or sent; the refusal names the key."""
    bench.running().set(changes=changes)

    assert (bench.refusal.code, bench.refusal.field) == (code, field)
    assert not bench.of(s.Record)
    assert bench.view.refusals == {code: 1}


def test_all_of_a_change_or_nothing(bench: Bench) -> None:
    """One bad key refuses the good one beside it."""
    bench.running().set(changes={"optim.lr": "0.1", "batch.size": "64"})

    assert bench.refusal.code is Code.IMMUTABLE
    assert not bench.acts


def test_a_stale_revision_is_a_conflict(bench: Bench) -> None:
    """Compare-and-set: the refusal says which revision holds."""
    bench.running().set(if_revision=7)

    assert bench.refusal.code is Code.CONFLICT
    assert "revision 1 holds" in bench.refusal.message


def test_the_revision_goes_with_the_order(bench: Bench) -> None:
    """The loop numbers revisions, so it has the last word on compare-and-set."""
    bench.running().set(if_revision=1)

    assert bench.acts[0].action == m.Configure(changes={"amp.dtype": "float16"}, base=1)


def test_without_a_worker_the_revision_is_judged_by_the_next_one(bench: Bench) -> None:
    """What holds in a worker that has not loaded its checkpoint yet is not known here."""
    bench.boot().set(if_revision=7)

    assert not bench.replies


def test_a_dry_run_shows_and_does_nothing(bench: Bench) -> None:
    """The differences, and no record, no order, no revision."""
    bench.running().set(dry_run=True)

    assert bench.result["dry_run"] is True
    assert bench.result["changes"] == [{"key": "amp.dtype", "old": "auto", "new": "float16"}]
    assert not bench.of(s.Record)


def test_a_change_without_effect_is_done_at_once(bench: Bench) -> None:
    """Setting what holds makes no revision."""
    bench.running().set(changes={"amp.dtype": "auto"})

    assert bench.result == {"changes": [], "dry_run": False, "trial": None}
    assert not bench.of(s.Record)


def test_without_effect_is_only_known_when_nothing_is_under_way(bench: Bench) -> None:
    """While another change is in flight, what holds now is not what will hold."""
    bench.running().set()
    bench.set(changes={"amp.dtype": "auto"})

    assert len(bench.acts) == 2


def test_a_preset_is_a_change(bench: Bench) -> None:
    """Its keys and values come from the table of presets."""
    bench.running().ask(p.Preset(name="ultra"))

    action = bench.acts[0].action
    assert isinstance(action, m.Configure)
    assert action.changes["amp.dtype"] == "bfloat16"


def test_an_unknown_preset_is_refused(bench: Bench) -> None:
    """The refusal lists the presets there are."""
    bench.running().ask(p.Preset(name="turbo"))

    assert bench.refusal.code is Code.BAD_VALUE
    assert "basic, advanced, ultra" in bench.refusal.message


def test_a_refusal_of_the_loop_reaches_the_client(bench: Bench) -> None:
    """The loop has the last word; its code, field and hint are kept."""
    bench.running().set()
    report = m.Refused(
        request_id="request-001", code="CONFLICT", message="stale", field="amp.dtype", hint="again"
    )
    bench.report(report)

    assert bench.refusal.code is Code.CONFLICT
    assert (bench.refusal.message, bench.refusal.field, bench.refusal.hint) == ("stale", "amp.dtype", "again")
    assert isinstance(bench.of(s.Record)[-1].entry, s.Rejected)


def test_an_unknown_code_of_the_loop_becomes_apply_failed(bench: Bench) -> None:
    """The set of codes is closed for clients."""
    bench.running().set()

    bench.report(m.Refused(request_id="request-001", code="ODD", message="odd"))

    assert bench.refusal.code is Code.APPLY_FAILED


# Other commands.


@pytest.mark.parametrize(
    ("command", "action", "result"),
    [
        (p.Reset(what="scaler"), m.Reset(what="scaler"), {"what": "scaler"}),
        (p.Inject(fault="overflow", windows=3), m.Inject(fault="overflow", windows=3), {"fault": "overflow", "windows": 3, "rank": None}),
        (p.Inject(fault="oom", rank=1), m.Inject(fault="oom", rank=1), {"fault": "oom", "windows": 1, "rank": 1}),
        (p.Reset(what="stats"), m.Reset(what="stats"), {"what": "stats"}),
    ],
)  # fmt: skip
def test_actions_are_answered_when_applied(
    make_bench: Callable[..., Bench], command: p.AnyCommand, action: m.Action, result: dict[str, object]
) -> None:
    """Reset and inject go the way of a change: recorded, ordered, applied, recorded, answered."""
    bench = make_bench(job_config(inject__allowed=True)).running()
    bench.ask(command)
    assert bench.acts[0].action == action

    bench.apply(bench.acts[0])

    assert bench.result == result


def test_faults_are_refused_unless_allowed(bench: Bench) -> None:
    """Injection is off in real runs, and the hint says what to set."""
    bench.running().ask(p.Inject(fault="overflow"))

    assert bench.refusal.code is Code.FORBIDDEN
    assert "[inject] allowed = true" in bench.refusal.hint


def test_a_checkpoint_is_answered_when_it_is_on_disk(bench: Bench) -> None:
    """Path, size and time of the checkpoint that was asked for."""
    bench.running().ask(p.Checkpoint())
    assert bench.orders[-1] == m.Checkpoint(request_id="request-001")

    bench.report(_saved("request-001"))

    assert bench.result == {"path": "ckpt-5", "bytes": 10, "seconds": 0.5}


def test_a_periodic_checkpoint_answers_nobody(bench: Bench) -> None:
    """Only the checkpoint with the request's id is the one that was asked for."""
    bench.running().ask(p.Checkpoint())

    bench.report(_saved(""))

    assert not bench.replies


def test_a_checkpoint_that_failed_is_refused(bench: Bench) -> None:
    """The disk's reason reaches whoever asked."""
    bench.running().ask(p.Checkpoint())

    bench.report(
        m.SaveFailed(window=5, message="No space left", reason=Trouble.FULL, request_id="request-001")
    )

    assert bench.refusal.code is Code.APPLY_FAILED
    assert bench.view.checkpoint_failures == {"full": 1}


def test_pause_and_resume_are_answered_when_true(bench: Bench) -> None:
    """Each reply comes with the state that it asked for."""
    bench.running().ask(p.Pause())
    bench.report(m.Holding(window=3, reason="ann", request_id="request-001"))
    assert bench.result == {"state": "paused"}
    assert bench.view.state is JobState.PAUSED

    bench.ask(p.Resume())
    bench.report(m.Going(window=3, request_id="request-002"))

    assert bench.result == {"state": "running"}


@pytest.mark.parametrize(
    ("command", "state"),
    [(p.Resume(), JobState.RUNNING), (p.Pause(), JobState.PAUSED)],
    ids=["resume", "pause"],
)
def test_what_is_true_already_is_done_at_once(bench: Bench, command: p.AnyCommand, state: JobState) -> None:
    """Pausing a paused job asks nothing of the worker."""
    (bench.running if state is JobState.RUNNING else bench.paused)()

    bench.ask(command)

    assert bench.result == {"state": state}
    assert not isinstance(bench.orders[-1], m.Pause | m.Resume)


def test_a_hold_by_policy_answers_every_pause(bench: Bench) -> None:
    """A pause that comes true for another reason is true all the same."""
    bench.running().ask(p.Pause())

    bench.report(m.Holding(window=3, reason="fallback limit"))

    assert bench.result == {"state": "paused"}


# Reads.


@pytest.mark.parametrize("command", [p.Status(), p.Get(), p.Get(keys=("dtype",))])
@pytest.mark.parametrize("prepare", ["boot", "running", "paused"])
def test_reads_are_answered_at_once(bench: Bench, command: p.AnyCommand, prepare: str) -> None:
    """Whatever the worker does, or where there is none."""
    getattr(bench, prepare)()

    bench.ask(command)

    assert isinstance(bench.reply, p.Done)


def test_statistics_need_a_window(bench: Bench) -> None:
    """Zeros that nobody measured are not statistics."""
    bench.running().ask(p.Stats())
    assert bench.refusal.code is Code.NOT_READY

    bench.report(snapshot(3))
    bench.ask(p.Stats())

    assert bench.result["job"]["windows"] == 3


def test_an_unknown_key_is_refused(bench: Bench) -> None:
    """Reading has the same did-you-mean as writing."""
    bench.running().ask(p.Get(keys=("amp.dtyp",)))

    assert bench.refusal.code is Code.UNKNOWN_KEY
    assert "did you mean 'amp.dtype'" in bench.refusal.message


# The same id again.


def test_the_same_request_again_gets_the_same_answer(bench: Bench) -> None:
    """A client that missed its reply may ask again; nothing happens twice."""
    bench.running().ask(SET, request_id="same-id-1")
    bench.apply(bench.acts[0])
    first = bench.reply

    bench.ask(SET, request_id="same-id-1")

    assert bench.reply is first
    assert len(bench.acts) == 1


def test_the_same_request_in_flight_joins(bench: Bench) -> None:
    """Both get the one reply; the order went out once."""
    bench.running().ask(SET, request_id="same-id-1", client="ann")
    bench.ask(SET, request_id="same-id-1", client="bob")

    bench.apply(bench.acts[0])

    assert [i.client for i in bench.of(s.Answer)] == ["ann", "bob"]


def test_the_journal_answers_for_an_earlier_daemon(bench: Bench) -> None:
    """Over a restart of the daemon too, the first answer is repeated."""
    stored = p.Done(id="same-id-1", boot="boot-0", revision=2, window=9, result={})

    bench.running().ask(SET, request_id="same-id-1", stored=stored)

    assert bench.reply is stored


def test_an_id_is_of_one_command(bench: Bench) -> None:
    """The same id with another command is a mistake that must not pass for a repetition."""
    bench.running().ask(SET, request_id="same-id-1")
    bench.ask(p.Pause(), request_id="same-id-1", client="bob")
    assert bench.refusal.code is Code.CONFLICT
    bench.apply(bench.acts[0])

    bench.ask(p.Reset(), request_id="same-id-1", client="bob")

    assert bench.refusal.code is Code.CONFLICT


def test_a_refusal_that_may_pass_is_judged_anew(bench: Bench) -> None:
    """NOT_READY while starting, then done: the same id must be able to succeed."""
    bench.boot().ask(p.Checkpoint(), request_id="same-id-1")
    assert bench.refusal.retryable
    bench.hello()
    bench.get_ready()

    bench.ask(p.Checkpoint(), request_id="same-id-1")
    bench.report(_saved("same-id-1"))

    assert bench.result["path"] == "ckpt-5"


# Bounds.


def test_so_many_are_in_flight_and_no_more(bench: Bench) -> None:
    """The 65th command is refused BUSY, and may be asked again."""
    bench.running()
    for _ in range(MOST_IN_FLIGHT):
        bench.ask(p.Checkpoint())
    assert not bench.replies

    bench.ask(p.Checkpoint())

    assert bench.refusal.code is Code.BUSY
    assert bench.refusal.retryable


def test_a_stop_has_a_place_in_reserve(bench: Bench) -> None:
    """A flood of commands cannot keep a job from being stopped."""
    bench.running()
    for _ in range(MOST_IN_FLIGHT):
        bench.ask(p.Checkpoint())

    bench.ask(p.Stop())

    assert bench.view.state is JobState.STOPPING


# Without a worker.


def test_a_change_made_while_starting_reaches_the_worker_with_its_start(bench: Bench) -> None:
    """`set` works before the worker is there; it is applied at the first boundary."""
    bench.boot().set()
    bench.hello()
    bench.get_ready()
    assert [act.request_id for act in bench.acts] == ["request-001"]

    bench.apply(bench.acts[0])

    assert isinstance(bench.reply, p.Done)


def test_a_change_made_while_loading_is_sent_when_ready(bench: Bench) -> None:
    """Between Start and Ready nothing is sent: a worker that loads takes no orders."""
    bench.boot().hello()
    bench.set()
    assert not bench.acts

    bench.get_ready()

    assert [act.request_id for act in bench.acts] == ["request-001"]


def test_a_change_survives_the_worker(bench: Bench) -> None:
    """An accepted change that the worker took to its grave is given to the next one."""
    bench.running().set()
    bench.die()
    bench.restart()

    starts = [order for order in bench.orders if isinstance(order, m.Start)]
    assert [act.request_id for act in starts[1].pending] == ["request-001"]
    assert not bench.replies


def test_a_change_survives_the_daemon(make_bench: Callable[..., Bench]) -> None:
    """What an earlier daemon accepted is applied by this one; who asks again gets its answer."""
    act = m.Act(request_id="earlier-1", action=m.Configure(changes={"amp.dtype": "float16"}), author="ann")
    bench = make_bench(pending=(act,)).running()
    assert bench.acts == [act]
    bench.ask(SET, request_id="earlier-1")

    bench.apply(act)

    assert isinstance(bench.reply, p.Done)


def test_a_checkpoint_of_a_lost_state_is_refused(bench: Bench) -> None:
    """The next worker has another state: the checkpoint that was asked for cannot be had."""
    bench.running().ask(p.Checkpoint())

    bench.die()

    assert bench.refusal.code is Code.NOT_READY
    assert bench.refusal.retryable


def test_a_pause_survives_the_worker(bench: Bench) -> None:
    """Whoever asked for a pause wants the next worker to hold too."""
    bench.running().ask(p.Pause())
    bench.die()
    bench.restart().get_ready()

    assert bench.orders[-1] == m.Pause(request_id="request-001")


def test_a_paused_job_is_paused_again_after_a_crash(bench: Bench) -> None:
    """A job does not run on by crashing."""
    bench.paused().die()
    bench.restart().get_ready()

    assert isinstance(bench.orders[-1], m.Pause)


@pytest.mark.parametrize("until_saved", [False, True], ids=["policy", "disk"])
def test_the_next_worker_holds_for_what_the_last_one_held_for(bench: Bench, until_saved: bool) -> None:
    """A job that waits for its disk is not one that somebody paused: it will go on by itself."""
    bench.running().report(m.Holding(window=3, reason="the disk is full", until_saved=until_saved))
    bench.die()
    bench.restart().get_ready()

    pause = bench.orders[-1]
    assert isinstance(pause, m.Pause)
    assert (pause.reason, pause.until_saved) == ("the disk is full", until_saved)


def test_a_hold_that_was_taken_over_is_its_operators_again(bench: Bench) -> None:
    """Who pauses a job that waits for its disk wants the next worker to wait for them."""
    bench.running().report(m.Holding(window=3, reason="the disk is full", until_saved=True))
    bench.report(m.Holding(window=3, reason="asked for"))
    bench.die()
    bench.restart().get_ready()

    assert isinstance(bench.orders[-1], m.Pause)
    assert not bench.orders[-1].until_saved


def test_a_resume_while_recovering_lets_the_next_worker_run(bench: Bench) -> None:
    """It is answered when the job runs, and no pause is sent any more."""
    bench.paused().die()
    bench.ask(p.Resume())
    assert not bench.replies

    bench.restart().get_ready()

    assert bench.result == {"state": "running"}
    assert not any(isinstance(order, m.Pause) for order in bench.orders)


def test_requests_are_counted_by_operation(bench: Bench) -> None:
    """The counter of /metrics has one label for each operation."""
    bench.running().ask(p.Status())
    bench.ask(p.Status())
    bench.ask(p.Preset(name="basic"))

    assert bench.view.requests == {"status": 2, "preset": 1}
