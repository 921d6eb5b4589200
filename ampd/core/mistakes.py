"""What is wrong with a value, in the words of whoever wrote it: which key, what was given, what was expected.

msgspec says which rule of a type was broken and at what path; the key, its unit and its choices are known here only.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from ampd.core import keys
from ampd.core.config import JobConfig
from ampd.core.keys import Key
from ampd.errors import ConfigError

_LACKING = re.compile("Object missing required field `(.*?)`")


def of_options(
    error: msgspec.ValidationError, given: Mapping[str, Any], options: type[msgspec.Struct], where: str
) -> ConfigError:
    """The same for a plugin's own options, which are the table `where` of the job file."""
    reason, path = _parted(error)
    name = path.partition(".")[0]
    hint = typing.get_type_hints(options, include_extras=True).get(name)
    doc = next((meta.description for meta in getattr(hint, "__metadata__", ()) if meta.description), "")
    known = f"known: {', '.join(options.__struct_fields__)}"
    if (lacking := _LACKING.match(reason)) is not None:
        field = f"{where}.{path}.{lacking.group(1)}".replace("..", ".")
        return ConfigError(f"{field} is missing", field=field, hint=doc or known)
    field = f"{where}.{path}".rstrip(".")
    said = f"{field} = {_at(path, given)!r}: expected {_plain(reason)}"
    return ConfigError(said, field=field, hint=doc or known)


def of_document(
    error: msgspec.ValidationError, document: Mapping[str, Any], where: str, *, section: str = ""
) -> ConfigError:
    """Turn msgspec's "Expected ... - at `$.amp.dtype`" into our form, with what was given; `section` is what `$` was."""
    reason, path = _parted(error)
    path = f"{section}.{path}".strip(".")
    if (lacking := _LACKING.match(reason)) is not None:
        return _of_absence(f"{path}.{lacking.group(1)}".lstrip("."), where)
    given = _at(path, document)
    if path not in keys.table():
        what = f"{where}: {path} = {given!r}: expected a table"
        return ConfigError(what, field=path, hint=f"write [{path}], and its keys below it")
    return of_value(keys.table()[path], given, reason, where)


def of_value(key: Key, given: Any, reason: str, where: str) -> ConfigError:
    """What is wrong with the value of one key; `reason` is msgspec's, `where` is empty where nobody need be told."""
    place = f"{where}: " if where else ""
    unit = f" ({key.unit})" if key.unit else ""
    return ConfigError(
        f"{place}{key.path} = {given!r}: expected {_expected(key, reason)}{unit}",
        field=key.path,
        hint=key.doc,
    )


def _expected(key: Key, reason: str) -> str:
    """What a key takes. A pattern, and the names of types that TOML does not have, say nothing to an operator."""
    words = choices(key.type)
    if words:
        at_least = "at least " * ("length >= " in reason)
        return f"{at_least}one of {', '.join(words)}"
    if key.form and ("matching regex" in reason or "enum value" in reason):
        return key.form
    return _plain(reason)


def _parted(error: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec says is wrong, and the path to it: "" for the whole, without the places in lists."""
    reason, _, place = str(error).partition(" - at `$")
    return reason, re.sub(r"\[.*", "", place.strip("`.")).strip(".")


def _at(path: str, document: Mapping[str, Any]) -> Any:
    given: Any = document
    for part in path.split("."):
        given = given.get(part) if isinstance(given, Mapping) else None
    return given


def _plain(reason: str) -> str:
    return reason.removeprefix("Expected ").replace(" | null`", "`")


def _of_absence(path: str, where: str) -> ConfigError:
    """A key without a default, or a table that has such keys, is not there."""
    if path in keys.table():
        return ConfigError(f"{where}: {path} is missing", field=path, hint=keys.table()[path].doc)
    needed = (
        field.name
        for field in msgspec.structs.fields(typing.get_type_hints(JobConfig)[path])
        if field.required
    )
    return ConfigError(
        f"{where}: [{path}] is missing",
        field=path,
        hint=f"it needs {' and '.join(needed)}; all else has defaults",
    )


def choices(hint: Any) -> list[str]:
    """The words a Literal key takes, whatever wraps it."""
    if typing.get_origin(hint) is typing.Literal:
        return [str(word) for word in typing.get_args(hint)]
    return [word for part in typing.get_args(hint)[:1] for word in choices(part)]
