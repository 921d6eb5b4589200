"""The protocol against its description: every command, field, code and result is there, and real answers are as told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core.capabilities import hello
from ampd.core.description import FIELDS, MEANING, OPEN, RESULTS
from ampd.core.protocol import Code, Command
from tests.core.bench import Bench, job_config, job_view, snapshot

COMMANDS: tuple[type[Command], ...] = get_args(p.AnyCommand)


def answer(bench: Bench, command: p.AnyCommand) -> p.Reply:
    """The reply of a running job whose worker does what it is told."""
    bench.ask(command)
    last = bench.orders[-1]
    match last:
        case m.Act():
            bench.apply(last, seq=len(bench.acts), window=10 * len(bench.acts), revision=1 + len(bench.acts))
        case m.Checkpoint():
            bench.report(
                m.Saved(window=1, path="c", bytes=1, seconds=1, stall_seconds=0, request_id=last.request_id)
            )
        case m.Pause():
            bench.report(m.Holding(window=1, reason="asked", request_id=last.request_id))
        case m.Resume():
            bench.report(m.Going(window=1, request_id=last.request_id))
        case m.Stop():
            bench.finish("stopped", message="stopped")
    return bench.reply


ASKED: tuple[p.AnyCommand, ...] = (
    p.Status(), p.Get(), p.Set(changes={"optim.lr": "0.5"}), p.Preset(name="ultra"), p.Stats(), p.Reset(),
    p.Checkpoint(), p.Pause(), p.Resume(), p.Inject(fault="overflow"), p.History(), p.Diff(), p.Rollback(revision=2),
    p.Overlay(), p.DropOverlay(), p.Set(changes={"optim.lr": "0.25"}, trial=5), p.Confirm(),
    p.Set(changes={"optim.lr": "0.125"}, trial=5, wait=False), p.Cancel(), p.Events(), p.Hello(), p.Stop(),
)  # fmt: skip


def test_every_operation_is_asked() -> None:
    """One that is new must be answered here too."""
    assert {type(command) for command in ASKED} == set(COMMANDS)


def test_every_answer_is_as_described(make_bench: Callable[..., Bench]) -> None:
    """One job is asked everything: each result has exactly the fields that are described, and survives the wire."""
    bench = make_bench(job_config(inject__allowed=True)).running()
    bench.report(snapshot(1))

    for command in ASKED:
        reply = answer(bench, command)

        assert isinstance(reply, p.Done), (command, reply)
        assert msgspec.json.decode(msgspec.json.encode(reply), type=p.Reply).id == reply.id
        if not isinstance(command, OPEN):
            assert set(reply.result) == set(RESULTS[type(command)]), command


@pytest.mark.parametrize("kind", COMMANDS)
def test_every_command_is_described(kind: type[Command]) -> None:
    """A sentence for itself, for each of its fields, and for what it gives."""
    about = hello(job_view())["operations"][kind.__struct_config__.tag]

    assert about["doc"].endswith(".")
    assert set(about["fields"]) == set(kind.__struct_fields__)
    assert all(field["description"].endswith(".") for field in about["fields"].values())
    assert bool(about["result"]) is (kind not in OPEN)


def test_nothing_is_described_that_is_not_there() -> None:
    """No field of a command that was renamed, no result of one that is gone."""
    assert set(FIELDS) == {name for kind in COMMANDS for name in kind.__struct_fields__}
    assert set(RESULTS) == set(COMMANDS) - set(OPEN)


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_meaning(code: Code) -> None:
    """In words, beside whether asking again may help."""
    assert hello(job_view())["codes"][code.value] == {
        "meaning": MEANING[code], "retryable": code.is_retryable,
    }  # fmt: skip


@pytest.mark.parametrize("kind", [p.Request, p.Done, p.Refusal, p.Event, p.Heartbeat])
def test_what_is_around_commands_is_described(kind: Any) -> None:
    """The envelopes of the protocol say what they are."""
    assert kind.__doc__.endswith(".")


def test_hello_fits_a_reply() -> None:
    """All of it is plain JSON."""
    told = hello(job_view())

    assert set(msgspec.json.decode(msgspec.json.encode(told))) == set(told)


def test_every_role_is_needed_by_something() -> None:
    """And no operation is without one."""
    assert set(p.ROLE_OF) == set(COMMANDS)
    assert set(p.ROLE_OF.values()) == set(p.Role)
