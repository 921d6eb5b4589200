"""What a request to change the configuration would do, decided before anything is sent: an Edit, or an Objection.

The rules are those of `core.change`; this module adds which code each refusal has, because a client acts on the
code (an unknown key is mistyped, an immutable one needs a restart, a bad value needs another).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ampd.core import change, keys, objections
from ampd.core.change import Difference
from ampd.core.config import JobConfig
from ampd.core.objections import Objection
from ampd.core.protocol import Code, Preset, Set
from ampd.errors import ConfigError


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """A valid change: typed values by full key, and the keys that it moves from what holds now."""

    changes: dict[str, Any]
    differences: tuple[Difference, ...]


def plan(config: JobConfig, command: Set | Preset) -> Edit | Objection:
    """What the command would do to `config`."""
    words = command.changes if isinstance(command, Set) else {}
    objection = _objection_to_keys(words)
    if objection is not None:
        return objection
    try:
        changes = change.parse(words) if isinstance(command, Set) else dict(change.preset(command.name))
        return edit(config, changes)
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
