"""The dotted keys of the job file, read off the structs of `config`: type, bounds, unit, live or not.

One table serves validation, `ampctl get`, completion and the reference page, so that they cannot disagree.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import operator
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import msgspec

from ampd.core.config import JobConfig
from ampd.core.section import Section
from ampd.errors import ConfigError


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key: `path` is dotted ("amp.dtype"); `type` is what msgspec validates a value against.

    `form` says in words what that takes, where the type alone would be hard to read.
    """

    path: str
    type: Any
    live: bool
    unit: str
    form: str
    doc: str
    default: Any


@functools.cache
def table() -> dict[str, Key]:
    """Every key of the job file by its path, in the order of the structs."""
    return {key.path: key for key in _walk(JobConfig, "")}


def resolve(name: str) -> Key:
    """The key that `name` means: a full path, or the last part of one where that is unique.

    Raises ConfigError with the nearest names where there is none, and with the candidates where there are many.
    """
    keys = table()
    if name in keys:
        return keys[name]
    candidates = [path for path in keys if path.rpartition(".")[2] == name]
    if len(candidates) == 1:
        return keys[candidates[0]]
    if candidates:
        raise ConfigError(
            f"{name!r} is ambiguous: it could be {', '.join(candidates)}",
            field=name,
            hint="give the full key",
        )
    raise ConfigError(
        f"{name!r} is not a key{did_you_mean(name, keys)}", field=name, hint="`ampctl get` lists all keys"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?" with the nearest of `known`, or nothing where none is near."""
    known = list(known)
    last = {path.rpartition(".")[2]: path for path in known}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    near = near or [
        last[n] for n in difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.6)
    ]
    return f"; did you mean {near[0]!r}?" if near else ""


def value_of(config: JobConfig, path: str) -> Any:
    """What `config` holds at a dotted path."""
    return _getter(path)(config)


@functools.cache
def sections() -> dict[str, tuple[str, ...]]:
    """The paths of each section's keys, in the order of `table` and of the sections in a configuration."""
    grouped = itertools.groupby(table(), key=lambda path: path.partition(".")[0])
    return {section: tuple(paths) for section, paths in grouped}


@functools.cache
def _getter(path: str) -> Callable[[JobConfig], Any]:
    return operator.attrgetter(path)


def _walk(section: type[Section], prefix: str) -> Iterator[Key]:
    hints = typing.get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        hint, path = hints[field.name], prefix + field.name
        if isinstance(hint, type) and issubclass(hint, Section):
            yield from _walk(hint, path + ".")
        else:
            meta = _meta_of(hint)
            extra = meta.extra or {}
            yield Key(
                path=path,
                type=hint,
                live=extra["live"],
                unit=extra["unit"],
                form=extra["form"],
                doc=meta.description or "",
                default=_default_of(field),
            )


def _meta_of(hint: Any) -> msgspec.Meta:
    """The Meta of Annotated[X, Meta], or of the first such member of a union (X | None)."""
    if typing.get_origin(hint) is Annotated:
        return next(part for part in hint.__metadata__ if isinstance(part, msgspec.Meta))
    return next(
        _meta_of(member) for member in typing.get_args(hint) if typing.get_origin(member) is Annotated
    )


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default
