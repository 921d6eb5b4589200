"""Writes plain data as YAML that a person can read in a diff. Writing only: nothing of ours ever reads YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def to_yaml(document: Mapping[str, Any], *, head: str = "") -> str:
    """The document, under a comment of one line."""
    comment = f"# {head}\n" if head else ""
    return comment + "\n".join(_lines(document)) + "\n"


def _lines(value: Mapping[str, Any] | list[Any]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _entry(f"{key}:", inner)
        return
    for inner in value:
        first, *rest = _lines(inner) if isinstance(inner, Mapping) and inner else [_scalar(inner)]
        yield f"- {first}"
        yield from (f"  {line}" if line else "" for line in rest)


def _entry(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list) and value:
        yield key
        yield from (f"  {line}" if line else "" for line in _lines(value))
    elif isinstance(value, str) and "\n" in value:
        yield f"{key} |"
        yield from (f"  {line}" if line else "" for line in value.rstrip("\n").split("\n"))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: Any) -> str:
    """A scalar as JSON, which is YAML; so no string is ever taken for a number, a date or `no`."""
    return json.dumps(value, ensure_ascii=False)
