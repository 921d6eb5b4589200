"""What a request to change the configuration would do, decided before anything is sent: an Edit, or an Objection.

The rules are those of `core.change`; this module adds which code each refusal has, because a client acts on the
code (an unknown key is mistyped, an immutable one needs a restart, a bad value needs another).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ampd.core import change, guard, keys, objections
from ampd.core.change import Difference
from ampd.core.config import JobConfig
from ampd.core.history import JOB_FILE, History
from ampd.core.objections import Objection
from ampd.core.orders import Configure
from ampd.core.protocol import Code, DropOverlay, Preset, Rollback, Set
from ampd.core.trial import Terms
from ampd.errors import ConfigError

AnyChange = Set | Preset | Rollback | DropOverlay


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """A valid change: typed values by full key, and the keys that it moves from what holds now.

    `dropped` are the keys among them that follow the job file from now on.
    """

    changes: dict[str, Any]
    differences: tuple[Difference, ...]
    dropped: tuple[str, ...] = ()
    trial: Terms | None = None


def plan(config: JobConfig, history: History, command: AnyChange) -> Edit | Objection:
    """What the command would do to `config`."""
    match command:
        case Set() | Preset():
            return _plan_new(config, command)
        case Rollback():
            number = command.revision
            return _plan_return(config, history, history.last - 1 if number is None else number)
        case DropOverlay():
            return _plan_return(config, history, JOB_FILE)


def _plan_new(config: JobConfig, command: Set | Preset) -> Edit | Objection:
    words = command.changes if isinstance(command, Set) else {}
    objection = _objection_to_keys(words) or _objection_to_options(command)
    if objection is not None:
        return objection
    try:
        changes = change.parse(words) if isinstance(command, Set) else dict(change.preset(command.name))
        return msgspec.structs.replace(edit(config, changes), trial=_terms(command))
    except ConfigError as error:
        return objections.of_error(Code.BAD_VALUE, error)


def _plan_return(config: JobConfig, history: History, number: int) -> Edit | Objection:
    """What makes the live keys those of a revision, and lets those go that were not changed then."""
    if number < JOB_FILE:
        return objections.nothing_before()
    try:
        then, held = history.config(number), history.overlay(number)
        live, _fixed = split_by_life(config, then)
        dropped = tuple(key for key in history.overlay(history.last) | live if key not in held)
        back = {key: keys.value_of(then, key) for key in dropped}
        return msgspec.structs.replace(edit(config, held | back), dropped=dropped)
    except ConfigError as error:
        return objections.of_error(Code.BAD_VALUE, error)


def edit(config: JobConfig, changes: Mapping[str, Any]) -> Edit:
    """The Edit that makes `changes`; raises ConfigError where the result would not be valid."""
    differences = change.differences(config, change.change(config, changes))
    return Edit(changes=dict(changes), differences=differences)


def split_by_life(old: JobConfig, new: JobConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """How `new` differs from `old`: the live keys with their values, and the names of the fixed ones."""
    moved = change.differences(old, new)
    live = {d.key: d.new for d in moved if keys.table()[d.key].live}
    return live, tuple(d.key for d in moved if d.key not in live)


def rebased(config: JobConfig, changes: Mapping[str, Any]) -> JobConfig:
    """`config` with changes that were valid when they were made; as it is where they no longer are."""
    try:
        return change.change(config, changes)
    except ConfigError:
        return config


def repeated(config: JobConfig, action: Configure, job_file: JobConfig) -> JobConfig:
    """`config` after a change of the journal is made again: keys that it dropped take what the job file says now."""
    return rebased(config, action.changes | {key: keys.value_of(job_file, key) for key in action.dropped})


def _terms(command: Set | Preset) -> Terms | None:
    """What the trial is to be; raises ConfigError where a guard is none."""
    if command.trial is None:
        return None
    guards = tuple(guard.parse(text) for text in command.guards) or guard.DEFAULT
    return Terms(windows=command.trial, guards=guards, is_awaited=command.wait)


def _objection_to_options(command: Set | Preset) -> Objection | None:
    if command.trial is not None:
        return None
    return (
        objections.untried("guards")
        if command.guards
        else None
        if command.wait
        else objections.untried("wait")
    )


def _objection_to_keys(words: Mapping[str, str]) -> Objection | None:
    seen: dict[str, str] = {}
    for word in words:
        try:
            key = keys.resolve(word)
        except ConfigError as error:
            return objections.of_error(Code.UNKNOWN_KEY, error)
        if not key.live:
            return objections.immutable(key.path)
        if key.path in seen:
            return objections.given_twice(key.path, seen[key.path], word)
        seen[key.path] = word
    return None
