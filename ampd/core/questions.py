"""What is answered at once, from what the supervisor knows: nothing here asks the worker or changes the run.

An answer is never remembered, since the same question later has another one; so asking again is always safe.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from ampd.core import objections, past, replies
from ampd.core import protocol as p
from ampd.core.capabilities import hello
from ampd.core.desk import Desk, Instructions
from ampd.core.history import History
from ampd.core.objections import Objection
from ampd.core.protocol import Code
from ampd.core.rate import Rate
from ampd.core.ring import Ring
from ampd.core.stimuli import Requested
from ampd.core.view import JobView
from ampd.errors import ConfigError

AT_ONCE = (p.Status, p.Get, p.Stats, p.Events, p.Hello)
"""What needs no journal, so that it is answered before that is read, and on nodes that have none."""
Question = p.Status | p.Get | p.Stats | p.Events | p.Hello | p.History | p.Diff | p.Overlay


class Sources(msgspec.Struct, frozen=True):
    """Where answers are read from."""

    view: JobView
    rate: Rate
    history: History
    ring: Ring


def read(desk: Desk, sources: Sources, asked: Requested) -> Instructions:
    """Answer a question."""
    command = asked.request.command
    assert isinstance(command, Question), f"{command} is no question"
    try:
        result = _answer(sources, command, asked.now)
    except ConfigError as error:
        code = Code.UNKNOWN_KEY if isinstance(command, p.Get) else Code.BAD_VALUE
        result = objections.of_error(code, error)
    if isinstance(result, Objection):
        return desk.refuse(asked, result)
    return desk.answer(asked, result, is_kept=False)


def _answer(sources: Sources, command: Question, now: float) -> replies.Result | Objection:
    view = sources.view
    match command:
        case p.Status():
            return replies.status(view, sources.rate, now)
        case p.Get():
            return replies.values(view, command.keys)
        case p.Stats():
            return replies.stats(view)
        case p.History():
            return past.history(sources.history, command.last)
        case p.Diff():
            return past.diff(sources.history, view, command)
        case p.Overlay():
            return past.overlay(sources.history, view)
        case p.Events():
            return past.events(sources.ring, view.boot, command)
        case p.Hello():
            return hello(view)
        case _:
            assert_never(command)
