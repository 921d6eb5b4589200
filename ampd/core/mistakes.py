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
from ampd.core.keys import Key
from ampd.errors import ConfigError


def of_document(error: msgspec.ValidationError, document: Mapping[str, Any], where: str) -> ConfigError:
    """Turn msgspec's "Expected ... - at `$.amp.dtype`" into our form, with what was given."""
    match = re.search(r"at `\$\.?([^`]*)`", str(error))
    path = re.sub(r"\[.*", "", match.group(1)) if match else ""
    if path not in keys.table():
        return ConfigError(f"{where}: {error}", field=path)
    given: Any = document
    for part in path.split("."):
        given = given.get(part) if isinstance(given, Mapping) else None
    return of_value(keys.table()[path], given, str(error), where)


def of_value(key: Key, given: Any, reason: str, where: str) -> ConfigError:
    """What is wrong with the value of one key; `reason` is msgspec's."""
    expected = re.sub(r" - at `.*", "", reason)
    words = choices(key.type)
    if words:
        expected = "expected one of " + ", ".join(words)
    unit = f" ({key.unit})" if key.unit else ""
    return ConfigError(
        f"{where}: {key.path} = {given!r}: {expected[0].lower()}{expected[1:]}{unit}",
        field=key.path,
        hint=key.doc,
    )


def choices(hint: Any) -> list[str]:
    """The words a Literal key takes, whatever wraps it."""
    if typing.get_origin(hint) is typing.Literal:
        return [str(word) for word in typing.get_args(hint)]
    return [word for part in typing.get_args(hint)[:1] for word in choices(part)]
