"""The run: a worker is started, briefed and heard, and started again when it dies."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from ampd.core import messages as m
from ampd.core import outcome
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.ledger import Cause
from ampd.core.lifecycle import JobState
from ampd.core.stimuli import TimerKind
from ampd.core.worker_life import Worker
from tests.core.bench import Bench, job_config, snapshot

SAVED = m.Saved(window=5, path="ckpt-5", bytes=10, seconds=0.5, stall_seconds=0.1)


def _seconds(bench: Bench, kind: TimerKind) -> list[float]:
    return [i.seconds for i in bench.of(s.SetTimer) if i.timer.kind is kind]


def test_booting_starts_one_worker_and_says_so(bench: Bench) -> None:
    """The first thing a daemon does is start its worker."""
    bench.boot()

    assert len(bench.of(s.Spawn)) == 1
    assert [event.name for event in bench.events] == ["daemon.started"]
    assert bench.view.state is JobState.STARTING


def test_a_worker_that_speaks_gets_the_job_file(bench: Bench) -> None:
    """Hello is answered with everything that a worker needs."""
    bench.boot().hello()

    assert bench.orders == [m.Start(config=job_config(), directory="runs/toy")]
    assert bench.supervisor.run.worker is Worker.BRIEFED


def test_a_ready_worker_makes_the_job_run(bench: Bench) -> None:
    """Ready moves the job on, and its facts into view."""
    bench.running()

    assert bench.view.state is JobState.RUNNING
    assert bench.view.choice is not None
    assert bench.view.ready is not None


def test_a_resumed_job_says_where(bench: Bench) -> None:
    """`ampctl status` says that and where a job went on."""
    bench.running(window=40)

    assert bench.view.state_reason == "resumed at window 40"


@pytest.mark.parametrize(
    ("returncode", "reason", "label"),
    [(1, "exit code 1", "crashed"), (0, "exit code 0", "crashed"), (-11, "signal SIGSEGV", "crashed"),
     (-9, "signal SIGKILL", "killed"), (-99, "signal 99", "crashed")],
)  # fmt: skip
def test_a_worker_that_ends_without_a_result_has_crashed(
    bench: Bench, returncode: int, reason: str, label: str
) -> None:
    """Whatever the exit code, 0 included: the result of a run is Finished alone."""
    bench.running().die(returncode)

    assert bench.view.state is JobState.RECOVERING
    assert bench.view.state_reason == reason
    assert bench.view.restarts == {label: 1}


def test_the_last_lines_of_a_crash_are_told(bench: Bench) -> None:
    """An operator sees why without looking for a log file."""
    bench.running().die(1, "Traceback", "CUDA error")

    died = next(event for event in bench.events if event.name == "worker.died")
    assert died.fields == {"reason": "exit code 1", "last_lines": ("Traceback", "CUDA error")}


def test_a_program_that_cannot_be_run_is_named(bench: Bench) -> None:
    """A worker that never was has a reason in words instead of an exit code."""
    bench.boot().feed(s.Exited(now=bench.now, returncode=127, reason="python9 cannot be run: No such file"))
    bench.fire(TimerKind.LAST_WORDS)

    assert bench.view.state_reason == "python9 cannot be run: No such file"


def test_backoff_doubles_with_each_crash(bench: Bench) -> None:
    """A worker that dies at once must not be started in a tight loop."""
    bench.running()
    for _ in range(3):
        bench.die()
        bench.restart()

    assert _seconds(bench, TimerKind.BACKOFF) == [1.0, 2.0, 4.0]


def test_backoff_has_an_end() -> None:
    """A job that may crash a thousand times in a row is not left waiting for a thousand years."""
    patient = job_config(restart__max_restarts=2000).restart
    slow = msgspec.structs.replace(patient, backoff_seconds=3600.0)

    assert outcome.backoff_seconds(patient, 9) == 256.0
    assert {outcome.backoff_seconds(patient, crashes) for crashes in (10, 1025, 2000)} == {300.0}
    assert outcome.backoff_seconds(slow, 2000) == 3600.0


def test_a_rollback_is_no_crash(bench: Bench) -> None:
    """A worker that left to go back to its checkpoint is started again at once, and costs no restart."""
    bench.running()
    bench.report(m.RolledBack(window=3, cause=Cause.MODEL))
    bench.die(returncode=0)
    bench.restart()
    bench.die()

    assert _seconds(bench, TimerKind.BACKOFF) == [0.0, 1.0]
    assert bench.view.restarts == {"rolled_back": 1, "crashed": 1}


def test_one_crash_too_many_fails_the_job(bench: Bench) -> None:
    """max_restarts crashes in a row are forgiven, the next is not."""
    bench.running()
    for _ in range(3):
        bench.die()
        bench.restart()
    bench.die(1, "out of memory")

    assert bench.view.state is JobState.FAILED
    assert bench.exits[0].code == 1
    assert "crashed 4 times" in bench.exits[0].message
    assert bench.exits[0].message.endswith("exit code 1: out of memory")


def test_a_new_checkpoint_forgives_earlier_crashes(bench: Bench) -> None:
    """A job that gets on may crash for ever; only one that does not is given up."""
    bench.running()
    for _ in range(5):
        bench.die()
        bench.restart().get_ready()
        bench.report(SAVED)

    assert bench.view.state is JobState.RUNNING
    assert set(_seconds(bench, TimerKind.BACKOFF)) == {1.0}


def test_no_restart_where_none_is_allowed(make_bench: Callable[..., Bench]) -> None:
    """max_restarts = 0 means that the first crash is the end."""
    bench = make_bench(job_config(restart__max_restarts=0)).running()

    bench.die()

    assert bench.view.state is JobState.FAILED
    assert "crashed once" in bench.exits[0].message


def test_last_words_are_heard_after_the_exit(bench: Bench) -> None:
    """Finished may be read from the socket after the process is gone; it still is the result."""
    bench.running().feed(s.Exited(now=bench.now, returncode=0))
    bench.finish("completed")

    assert bench.view.state is JobState.COMPLETED
    assert bench.exits == [s.Exit(0)]


def test_counters_go_on_over_a_restart(bench: Bench) -> None:
    """Windows of the worker that died stay counted, and those run again are counted apart."""
    bench.running().report(snapshot(30))
    bench.die()
    bench.restart().get_ready(20)
    bench.report(snapshot(25, windows=5))

    assert bench.view.counts.windows == 35
    assert bench.view.windows_recomputed == 10
    assert bench.view.past_seconds == {"train": 30.0}


def test_figures_stay_in_view_while_no_worker_runs(bench: Bench) -> None:
    """`ampctl status` during a restart shows how far the job had come."""
    bench.running().report(snapshot(30))
    bench.die()

    bench.ask(p.Status())

    assert bench.result["window"] == 30
    assert bench.result["state"] == "recovering"


def test_a_restarted_worker_gets_the_schedule(bench: Bench) -> None:
    """What was changed live is repeated at its window by the next worker."""
    bench.running().set()
    bench.apply(bench.acts[0], seq=1, window=10)
    bench.die()
    bench.restart()

    starts = [order for order in bench.orders if isinstance(order, m.Start)]
    assert [done.window for done in starts[1].schedule] == [10]
    assert starts[1].config == starts[0].config


def test_a_repeated_action_is_not_recorded_again(bench: Bench) -> None:
    """The schedule's actions were recorded and answered when they first took effect."""
    bench.running().set()
    act = bench.acts[0]
    bench.apply(act, seq=1)
    bench.die()
    bench.restart().get_ready()
    bench.apply(act, seq=1)

    assert len([i for i in bench.of(s.Record) if isinstance(i.entry, s.Taken)]) == 1
    assert bench.view.changes == {"operator": 1}


def test_the_journal_is_what_a_new_daemon_begins_with(make_bench: Callable[..., Bench]) -> None:
    """Until its worker is ready, a daemon shows the job file with the recorded changes made."""
    change = m.Configure(changes={"optim.lr": 0.5})
    done = m.AppliedAction(seq=1, window=3, revision=2, action=change, request_id="earlier-1")
    bench = make_bench(schedule=(done,)).boot()

    assert (bench.view.config.optim.lr, bench.view.revision) == (0.5, 2)
    bench.hello()
    assert bench.orders == [m.Start(config=job_config(), directory="runs/toy", schedule=(done,))]


def test_changes_of_a_policy_are_recorded_without_a_client(bench: Bench) -> None:
    """What the loop decides is history too, so it is on disk; nobody waits for a reply."""
    change = m.Configure(changes={"amp.dtype": "bfloat16"})
    done = m.AppliedAction(seq=1, window=3, revision=2, action=change, author="policy")
    bench.running().report(m.Applied(applied=done))

    assert bench.of(s.Record) == [s.Record(s.Taken(done, None))]
    assert bench.view.changes == {"policy": 1}


def test_a_worker_that_refuses_the_configuration_is_not_restarted(make_bench: Callable[..., Bench]) -> None:
    """A dtype that the device refuses ends `ampd start` with exit 2 and the message, held or not."""
    bench = make_bench(job_config(job__on_finish="hold")).boot()
    bench.hello()
    bench.finish("failed", -1, message="no float16 here", hint="use bfloat16", exit_code=2)
    bench.leave()

    assert bench.exits == [s.Exit(2, "no float16 here", "use bfloat16")]


def test_a_worker_that_will_not_leave_is_killed(bench: Bench) -> None:
    """After its result a worker has a while to go; then it hangs."""
    bench.running()
    bench.finish()
    bench.fire(TimerKind.LEAVING)

    assert bench.of(s.Kill) == [s.Kill(gently=False)]
    assert not bench.exits


@pytest.mark.parametrize("result", ["completed", "failed"])
def test_a_held_daemon_serves_on(make_bench: Callable[..., Bench], result: m.Result) -> None:
    """on_finish = "hold" keeps metrics and status up after the job, until it is stopped."""
    bench = make_bench(job_config(job__on_finish="hold")).running()
    bench.finish(result)
    bench.leave()
    assert not bench.exits

    bench.ask(p.Stop())

    assert bench.result == {"state": result, "saved": False}
    assert [i.code for i in bench.exits] == [0 if result == "completed" else 1]


def test_the_log_level_follows_the_configuration(bench: Bench) -> None:
    """`ampctl set log.level=debug` reaches the log at once when it is applied."""
    bench.running().set(changes={"log.level": "debug"})
    assert not bench.of(s.SetLogLevel)

    bench.apply(bench.acts[0])

    assert bench.of(s.SetLogLevel) == [s.SetLogLevel("debug")]


def test_a_worker_of_the_past_moves_nothing(bench: Bench) -> None:
    """A report without a worker is told on and otherwise ignored."""
    bench.running().die()

    bench.report(m.Holding(window=3, reason="late"))

    assert bench.view.state is JobState.RECOVERING
    assert bench.events[-1].name == "job.paused"


def test_a_stale_timer_does_nothing(bench: Bench) -> None:
    """A back-off that was overtaken by a stop starts no worker."""
    bench.running().die()
    bench.signal("terminate")

    bench.fire(TimerKind.BACKOFF)

    assert len(bench.of(s.Spawn)) == 1
