"""Stops: by command or signal, with a checkpoint or without, once or in a hurry, and the exit code of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.lifecycle import JobState
from ampd.core.protocol import Code
from ampd.core.stimuli import TimerKind
from ampd.core.supervisor import HURRY_SECONDS
from tests.core.bench import Bench, job_config, snapshot


def _save(bench: Bench, window: int) -> None:
    bench.report(m.Saved(window=window, path=f"ckpt-{window}", bytes=1, seconds=0.1, stall_seconds=0.1))


def _budgets(bench: Bench) -> list[float]:
    return [i.seconds for i in bench.of(s.SetTimer) if i.timer.kind is TimerKind.SAVE_BUDGET]


@pytest.mark.parametrize("how", ["terminate", "interrupt", "command"])
def test_a_stop_saves_and_exits_with_0(bench: Bench, how: str) -> None:
    """SIGTERM, Ctrl-C and `ampctl stop` are one thing, and a saved stop is no failure."""
    bench.running().report(snapshot(12))
    bench.ask(p.Stop()) if how == "command" else bench.signal(how)
    assert bench.orders[-1] == m.Stop(save=True)
    assert _budgets(bench) == [60.0]

    _save(bench, 12)
    bench.finish("stopped", 12)
    bench.leave()

    assert bench.view.state is JobState.STOPPED
    assert bench.exits == [s.Exit(0)]
    assert [e.fields["to"] for e in bench.events if e.name == "lifecycle.changed"][-2:] == [
        "stopping",
        "stopped",
    ]


def test_a_stop_is_answered_with_what_became_of_it(bench: Bench) -> None:
    """The final state, and whether everything that was run is on disk."""
    bench.running().report(snapshot(12))
    bench.ask(p.Stop())
    _save(bench, 12)
    assert not bench.replies

    bench.finish("stopped", 12)

    assert bench.result == {"state": "stopped", "saved": True}


def test_a_stop_without_saving_says_that_it_did_not(bench: Bench) -> None:
    """`ampctl stop --no-save` leaves at once, knowingly, with exit 0."""
    bench.running().report(snapshot(12))
    bench.ask(p.Stop(save=False))
    assert bench.orders[-1] == m.Stop(save=False)
    assert _budgets(bench) == [HURRY_SECONDS]

    bench.finish("stopped", 12)
    bench.leave()

    assert bench.result == {"state": "stopped", "saved": False}
    assert bench.exits == [s.Exit(0)]


def test_several_stops_are_all_answered(bench: Bench) -> None:
    """The second one waits for the same end."""
    bench.running()
    bench.ask(p.Stop(), client="ann")
    bench.ask(p.Stop(), client="bob")

    bench.finish("stopped", 0)

    assert [i.client for i in bench.of(s.Answer)] == ["ann", "bob"]
    assert len([o for o in bench.orders if isinstance(o, m.Stop)]) == 1


def test_a_second_signal_does_not_wait_for_the_checkpoint(bench: Bench) -> None:
    """Ctrl-C twice: leave without saving, and soon; the exit code says that it was cut short."""
    bench.running().report(snapshot(12))
    bench.signal("interrupt")
    bench.signal("interrupt")
    assert bench.orders[-1] == m.Stop(save=False)
    assert _budgets(bench) == [60.0, HURRY_SECONDS]

    bench.finish("stopped", 12)
    bench.leave()

    assert [i.code for i in bench.exits] == [130]


def test_a_third_signal_kills(bench: Bench) -> None:
    """Whoever presses Ctrl-C three times wants it gone."""
    bench.running()
    for _ in range(3):
        bench.signal("interrupt")
    assert bench.of(s.Kill) == [s.Kill(gently=False)]

    bench.report(snapshot(3))
    bench.die(-9)

    assert bench.view.state is JobState.STOPPED
    assert bench.exits == [s.Exit(130, "interrupted before it saved")]


def test_a_hurried_stop_that_saved_after_all_is_a_good_one(bench: Bench) -> None:
    """130 only where something was lost."""
    bench.running().report(snapshot(12))
    bench.signal("interrupt")
    bench.signal("interrupt")
    _save(bench, 12)
    bench.finish("stopped", 12)
    bench.leave()

    assert bench.exits == [s.Exit(0)]


def test_a_hurried_command_cuts_nothing_short(bench: Bench) -> None:
    """`ampctl stop`, then `ampctl stop --no-save`: meant, so no 130."""
    bench.running().report(snapshot(12))
    bench.ask(p.Stop())
    bench.ask(p.Stop(save=False))
    assert bench.orders[-1] == m.Stop(save=False)

    bench.finish("stopped", 12)
    bench.leave()

    assert bench.exits == [s.Exit(0)]


def test_a_worker_that_saves_too_long_is_killed_and_the_job_has_failed(bench: Bench) -> None:
    """The save budget is a promise to whoever waits; what was not saved is said."""
    bench.running().report(snapshot(12))
    bench.ask(p.Stop())
    bench.fire(TimerKind.SAVE_BUDGET)
    assert bench.of(s.Kill) == [s.Kill(gently=False)]

    bench.die(-9)

    assert bench.view.state is JobState.FAILED
    assert bench.result == {"state": "failed", "saved": False}
    assert bench.exits[0].code == 1
    assert "save_budget_seconds = 60" in bench.exits[0].message


def test_a_worker_that_dies_while_it_saves_is_not_restarted(bench: Bench) -> None:
    """A stop ends the job either way."""
    bench.running().report(snapshot(12))
    bench.signal("terminate")

    bench.die(1)

    assert bench.view.state is JobState.FAILED
    assert "exit code 1 before it saved" in bench.exits[0].message
    assert len(bench.of(s.Spawn)) == 1


@pytest.mark.parametrize("has_spoken", [False, True], ids=["loading", "briefed"])
@pytest.mark.parametrize(("signal", "code"), [("terminate", 0), ("interrupt", 130)])
def test_a_worker_that_is_not_ready_has_nothing_to_save(
    bench: Bench, has_spoken: bool, signal: str, code: int
) -> None:
    """It is told to leave by SIGTERM, without a Stop order; only a Ctrl-C counts as cut short."""
    bench.boot()
    if has_spoken:
        bench.hello()
    bench.signal(signal)
    assert bench.of(s.Kill) == [s.Kill(gently=True)]

    bench.die(-15)

    assert bench.view.state is JobState.STOPPED
    assert [i.code for i in bench.exits] == [code]


def test_a_worker_that_becomes_ready_while_stopping_is_not_used(bench: Bench) -> None:
    """The SIGTERM is on its way; the job does not run again in between."""
    bench.boot().hello()
    bench.set()
    bench.signal("terminate")

    bench.get_ready()

    assert bench.view.state is JobState.STOPPING
    assert not any(isinstance(order, m.Act) for order in bench.orders)


def test_a_stop_during_recovery_is_done_at_once(bench: Bench) -> None:
    """There is no worker to wait for."""
    bench.running().die()

    bench.ask(p.Stop())

    assert bench.result == {"state": "stopped", "saved": False}
    assert bench.exits == [s.Exit(0)]


def test_a_stop_while_last_words_are_read_waits_for_them(bench: Bench) -> None:
    """The worker may have finished just now."""
    bench.running().feed(s.Exited(now=bench.now, returncode=0))
    bench.signal("terminate")
    assert not bench.exits

    bench.finish("completed")

    assert bench.view.state is JobState.COMPLETED
    assert bench.exits == [s.Exit(0)]


def test_a_job_that_completes_while_stopping_is_complete(bench: Bench) -> None:
    """The last window came before the stop."""
    bench.running().signal("terminate")
    bench.finish("completed")
    bench.leave()

    assert bench.view.state is JobState.COMPLETED
    assert bench.exits == [s.Exit(0)]


@pytest.mark.parametrize("prepare", ["running", "paused"])
def test_a_worker_may_stop_by_itself(bench: Bench, prepare: str) -> None:
    """A Finished that nobody asked for is the result all the same."""
    getattr(bench, prepare)()
    bench.finish("stopped", 5, message="told by its group")
    bench.leave()

    assert bench.view.state is JobState.STOPPED
    assert bench.exits == [s.Exit(0)]


@pytest.mark.parametrize(("said", "code"), [(0, 1), (1, 1), (2, 2)])
def test_a_failed_run_has_its_exit_code_and_message(bench: Bench, said: int, code: int) -> None:
    """Finished decides; a failed run never exits with 0."""
    bench.running().finish("failed", 7, message="model is not finite", hint="see the log", exit_code=said)
    bench.leave()

    assert bench.exits == [s.Exit(code, "model is not finite", "see the log")]


def test_the_daemon_waits_for_its_worker_to_leave(bench: Bench) -> None:
    """Until then the worker holds the job's lock and its device."""
    bench.running().finish()
    assert not bench.exits

    bench.leave()

    assert bench.exits == [s.Exit(0)]


def test_no_reply_is_lost_to_the_end(make_bench: Callable[..., Bench]) -> None:
    """A change that was applied and is being recorded is answered before the daemon exits."""
    bench = make_bench(writes=False).running()
    bench.set()
    bench.write()
    bench.apply(bench.acts[0])
    bench.finish()
    bench.leave()
    assert not bench.exits

    bench.write()

    assert isinstance(bench.reply, p.Done)
    assert bench.exits == [s.Exit(0)]


def test_what_never_took_effect_is_refused_at_the_end(bench: Bench) -> None:
    """Accepted, sent, and overtaken by the end: refused, and recorded as refused, so that it does not come back."""
    bench.running().set()

    bench.finish()

    assert bench.refusal.code is Code.SHUTTING_DOWN
    assert isinstance(bench.of(s.Record)[-1].entry, s.Rejected)


def test_a_change_that_is_being_recorded_at_the_end_is_refused(make_bench: Callable[..., Bench]) -> None:
    """Its record is on disk as accepted, so its refusal has to be too."""
    bench = make_bench(writes=False).running()
    bench.set()
    bench.finish()

    bench.write()

    assert bench.refusal.code is Code.SHUTTING_DOWN


def test_what_an_earlier_daemon_promised_stays_promised(make_bench: Callable[..., Bench]) -> None:
    """Nobody waits for it here, and the next start applies it: it is left in the journal."""
    act = m.Act(request_id="earlier-1", action=m.Configure(changes={"amp.dtype": "float16"}))
    bench = make_bench(pending=(act,)).boot()
    bench.signal("terminate")
    bench.die(-15)

    assert bench.exits == [s.Exit(0)]
    assert not bench.of(s.Record)


@pytest.mark.parametrize(
    "command",
    [p.Set(changes={"amp.dtype": "float16"}), p.Preset(name="ultra"), p.Reset(), p.Checkpoint(), p.Pause(), p.Resume()],
    ids=lambda command: type(command).__name__,
)  # fmt: skip
@pytest.mark.parametrize("when", ["stopping", "over"])
def test_commands_are_refused_when_it_is_over(
    make_bench: Callable[..., Bench], command: p.AnyCommand, when: str
) -> None:
    """Reads go on; whatever would change the run is refused, with what to do."""
    bench = make_bench(job_config(job__on_finish="hold")).running()
    bench.signal("terminate") if when == "stopping" else bench.finish()

    bench.ask(command)

    assert bench.refusal.code is Code.SHUTTING_DOWN
    assert bench.refusal.hint


def test_status_is_answered_to_the_end(make_bench: Callable[..., Bench]) -> None:
    """A held daemon shows how the job ended."""
    bench = make_bench(job_config(job__on_finish="hold")).running()
    bench.finish("failed", message="model is not finite")
    bench.leave()

    bench.ask(p.Status())

    assert bench.result["state"] == "failed"
    assert bench.result["message"] == "model is not finite"


@pytest.mark.parametrize("signal", ["terminate", "interrupt"])
def test_a_held_daemon_leaves_on_a_signal(make_bench: Callable[..., Bench], signal: str) -> None:
    """With the code of the result."""
    bench = make_bench(job_config(job__on_finish="hold")).running()
    bench.finish()
    bench.leave()

    bench.signal(signal)

    assert bench.exits == [s.Exit(0)]


def test_a_signal_while_the_worker_leaves_is_impatience(bench: Bench) -> None:
    """The result is known; nothing is lost by killing what is left."""
    bench.running().finish()

    bench.signal("interrupt")

    assert bench.of(s.Kill) == [s.Kill(gently=False)]


# SIGHUP.


def _reload(bench: Bench, **keys: Any) -> None:
    bench.signal("hangup")
    assert isinstance(bench.instructions[-1], s.ReadJobFile)
    bench.feed(s.Reloaded(now=bench.now, config=job_config(**keys)))


def test_a_reload_applies_what_is_live(bench: Bench) -> None:
    """The live keys become what the file says, by the same way as any change."""
    bench.running()

    _reload(bench, optim__lr=0.5)

    assert bench.acts[0].action == m.Configure(changes={"optim.lr": 0.5})
    assert bench.acts[0].author == "reload"


def test_a_reload_names_what_needs_a_restart(bench: Bench) -> None:
    """Fixed keys are not silently ignored."""
    bench.running()

    _reload(bench, optim__lr=0.5, batch__size=64)

    told = next(event for event in bench.events if event.name == "config.reloaded")
    assert told.fields == {"changes": {"optim.lr": 0.5}, "needs_restart": ("batch.size",)}


def test_a_reload_without_changes_orders_nothing(bench: Bench) -> None:
    """It is told all the same, so that the operator sees that it was read."""
    bench.running()

    _reload(bench)

    assert not bench.acts
    assert bench.events[-1].name == "config.reloaded"


def test_a_bad_job_file_changes_nothing(bench: Bench) -> None:
    """The error is told and the job goes on."""
    bench.running().signal("hangup")

    bench.feed(s.Reloaded(now=bench.now, error="not TOML", hint="quotes"))

    assert bench.events[-1].name == "config.reload_refused"
    assert bench.events[-1].fields == {"error": "not TOML", "hint": "quotes"}
    assert not bench.acts


def test_a_reload_while_stopping_is_refused(bench: Bench) -> None:
    """There is nothing left to change."""
    bench.running().signal("terminate")

    _reload(bench, optim__lr=0.5)

    assert bench.events[-1].name == "config.reload_refused"
    assert not bench.acts


def test_a_reload_that_never_took_effect_does_not_come_back(bench: Bench) -> None:
    """The next start reads the file anyway; an older one in the journal would undo a newer one."""
    bench.running()
    _reload(bench, optim__lr=0.5)

    bench.finish()
    bench.leave()

    assert isinstance(bench.of(s.Record)[-1].entry, s.Rejected)
    assert bench.exits == [s.Exit(0)]
