"""A daemon that is attached to a program with a loop of its own: what it refuses, and how it ends."""

from __future__ import annotations

import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.lifecycle import JobState
from ampd.core.protocol import Code
from ampd.core.stimuli import TimerKind
from tests.core.bench import Bench


@pytest.fixture
def attached(bench: Bench) -> Bench:
    """A daemon whose worker is the program that started it."""
    bench.view.is_attached = True
    return bench


@pytest.mark.parametrize(
    "command", [p.Stop(), p.Checkpoint(), p.Pause(), p.Resume()], ids=lambda c: type(c).__name__
)
def test_what_only_a_loop_of_ours_does_is_refused(attached: Bench, command: p.AnyCommand) -> None:
    """With the reason; nothing is sent to the program, and it runs on."""
    attached.running()
    sent = len(attached.orders)

    attached.ask(command)

    assert attached.refusal.code is Code.FORBIDDEN
    assert "only attached to it" in attached.refusal.message
    assert (len(attached.orders), attached.view.state) == (sent, JobState.RUNNING)


def test_settings_and_resets_go_to_the_program(attached: Bench) -> None:
    """As to any worker, and answered when they took effect."""
    attached.running().set()
    attached.apply(attached.acts[-1])
    assert attached.view.config.amp.dtype == "float16"

    attached.ask(p.Reset(what="stats"))

    assert attached.acts[-1].action == m.Reset(what="stats")


def test_a_program_that_takes_its_leave_is_let_go_of(attached: Bench) -> None:
    """It lives on, so nobody waits for its end, and the daemon goes with 0."""
    attached.running().finish("completed", 12)
    assert attached.of(s.Kill) == [s.Kill(gently=True)]

    attached.leave()

    assert attached.exits == [s.Exit(0)]


def test_a_program_that_vanishes_is_not_started_again(attached: Bench) -> None:
    """Whatever `restart.max_restarts` says; what waits is answered."""
    attached.running().set()

    attached.die()

    assert len(attached.of(s.Spawn)) == 1
    assert attached.view.state is JobState.FAILED
    assert [exit.message for exit in attached.exits] == ["the program ended without saying how"]


@pytest.mark.parametrize("name", ["terminate", "interrupt"])
def test_a_signal_ends_the_daemon_alone(attached: Bench, name: str) -> None:
    """The program gets no order to stop; it is let go of, which is no failure."""
    attached.running()
    sent = len(attached.orders)

    attached.signal(name)
    assert attached.of(s.Kill) == [s.Kill(gently=True)]
    attached.leave()
    attached.fire(TimerKind.LAST_WORDS)

    assert (len(attached.orders), attached.view.state) == (sent, JobState.STOPPED)
    assert attached.exits == [s.Exit(0)]


def test_a_signal_before_the_first_step_ends_it_too(attached: Bench) -> None:
    """The program has said that it is there, and has not run a step yet."""
    attached.boot().hello()

    attached.signal("terminate")
    attached.leave()
    attached.fire(TimerKind.LAST_WORDS)

    assert attached.exits == [s.Exit(0)]
