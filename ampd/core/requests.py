"""What each command asks for: answered at once, refused, or handed to the desk as an order.

Reads are answered from the view whatever the worker does. A change is validated here against what holds now and
again by the loop, where revisions are numbered; only while a worker takes orders and no other action is under way
is what holds here known to be what holds there, so only then is a change without effect answered without asking,
and a stale revision refused without asking.
"""

from __future__ import annotations

from typing import assert_never

from ampd.core import edits, objections, replies
from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core.desk import Desk, Instructions
from ampd.core.edits import Edit
from ampd.core.history import History
from ampd.core.lifecycle import JobState
from ampd.core.objections import Objection
from ampd.core.stimuli import Requested
from ampd.core.view import JobView

OF_THE_LOOP = (p.Checkpoint, p.Pause, p.Resume, p.Stop)
"""What only a loop of ours does; a program with its own is not stopped or saved from outside."""


def route(desk: Desk, view: JobView, history: History, asked: Requested) -> Instructions:
    """Take a command that may change the run (any but a question and a stop)."""
    command = asked.request.command
    match command:
        case p.Set() | p.Preset() | p.Rollback() | p.DropOverlay():
            return _change(desk, view, history, asked)
        case p.Reset():
            return desk.admit(asked, act(asked, m.Reset(what=command.what)))
        case p.Confirm():
            return desk.admit(asked, act(asked, m.Confirm(), command.reason))
        case p.Cancel():
            return desk.admit(asked, act(asked, m.Cancel(), command.reason))
        case p.Inject():
            return _inject(desk, view, asked, command)
        case p.Checkpoint():
            return _checkpoint(desk, view, asked)
        case p.Pause():
            return _hold(desk, view, asked, m.Pause(request_id=asked.request.id), JobState.PAUSED)
        case p.Resume():
            return _hold(desk, view, asked, m.Resume(request_id=asked.request.id), JobState.RUNNING)
        case (
            p.Status() | p.Get() | p.Stats() | p.Events() | p.Hello() | p.History() | p.Diff() | p.Overlay()
            | p.Stop()
        ):  # fmt: skip
            raise AssertionError(f"{command} is not routed")
        case _:
            assert_never(command)


def act(asked: Requested, action: m.Asked, reason: str = "") -> m.Act:
    """The order that carries out an action for who asked."""
    return m.Act(request_id=asked.request.id, action=action, author=asked.author, reason=reason)


def _change(desk: Desk, view: JobView, history: History, asked: Requested) -> Instructions:
    command = asked.request.command
    assert isinstance(command, edits.AnyChange), f"{command} is no change"
    planned = edits.plan(view.config, history, command)
    if isinstance(planned, Edit):
        planned = _on_revision(desk, view, planned, command.if_revision)
    if isinstance(planned, Objection):
        return desk.refuse(asked, planned)
    if command.dry_run:
        watched = replies.on_trial(planned.trial, None)
        result = replies.changed(planned.differences, dry_run=True, trial=watched)
        return desk.answer(asked, result, is_kept=False)
    if not planned.differences and not planned.dropped and _is_settled(desk, view):
        return desk.answer(asked, replies.changed((), dry_run=False))
    # What goes back was worked out from what holds now, so it must not be made on anything else.
    goes_back = isinstance(command, p.Rollback | p.DropOverlay)
    base = view.revision if goes_back and command.if_revision is None else command.if_revision
    action = m.Configure(changes=planned.changes, base=base, dropped=planned.dropped, trial=planned.trial)
    return desk.admit(asked, act(asked, action, command.reason))


def _on_revision(desk: Desk, view: JobView, planned: Edit, asked: int | None) -> Edit | Objection:
    if asked is None or asked == view.revision or not _is_settled(desk, view):
        return planned
    return objections.stale_revision(asked, view.revision)


def _is_settled(desk: Desk, view: JobView) -> bool:
    """Whether what holds here is what holds in the loop."""
    return view.state.has_worker and not desk.has_actions


def _inject(desk: Desk, view: JobView, asked: Requested, command: p.Inject) -> Instructions:
    if not view.config.inject.allowed:
        return desk.refuse(asked, objections.injection_forbidden())
    action = m.Inject(fault=command.fault, windows=command.windows, rank=command.rank)
    return desk.admit(asked, act(asked, action))


def _checkpoint(desk: Desk, view: JobView, asked: Requested) -> Instructions:
    if view.state in (JobState.STARTING, JobState.RECOVERING):
        return desk.refuse(asked, objections.no_worker(view.state))
    return desk.admit(asked, m.Checkpoint(request_id=asked.request.id))


def _hold(
    desk: Desk, view: JobView, asked: Requested, order: m.Pause | m.Resume, wanted: JobState
) -> Instructions:
    if view.state is wanted and not desk.has_holds:
        return desk.answer(asked, {"state": wanted})
    return desk.admit(asked, order)
