"""Words of a closed set that say what they mean: the word is what goes over the wire, `doc` is what a person reads."""

from __future__ import annotations

import enum
from typing import Self


class Term(enum.StrEnum):
    """A member is its word; what it means is kept beside it, so that no table can forget one."""

    doc: str

    def __new__(cls, word: str, doc: str) -> Self:
        """`NAME = word, doc` in the class that lists the words."""
        member = str.__new__(cls, word)
        member._value_, member.doc = word, doc
        return member
