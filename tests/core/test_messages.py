"""The link's vocabulary: every order and report comes out of msgpack as it went in, and nothing unknown does."""

from __future__ import annotations

import enum
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core import messages as m
from ampd.core.config import JobConfig
from tests.core.jobs import job

ORDERS: tuple[type[m.Message], ...] = typing.get_args(m.Order)
REPORTS: tuple[type[m.Message], ...] = typing.get_args(m.Report)
ACTIONS: tuple[type[m.Message], ...] = typing.get_args(m.Action)

NAMES = st.text("abcdef.", max_size=8)
NUMBERS = st.floats(allow_nan=False, width=64)
COUNTS = st.integers(-(2**63), 2**63 - 1)
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | COUNTS | NUMBERS | NAMES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=3,
)
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    int: COUNTS, float: NUMBERS, str: NAMES, bool: st.booleans(), type(None): st.none(), Any: PLAIN,
    JobConfig: st.builds(lambda seed: job(job={"seed": seed}), st.integers(0, 100)),
}  # fmt: skip


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """All values of a type that a message's field can have."""
    if hint in LEAVES:
        return LEAVES[hint]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = typing.get_type_hints(hint)
        return st.fixed_dictionaries({n: values_of(hints[n]) for n in hint.__struct_fields__}).map(
            lambda fields: hint(**fields)
        )
    return _values_of_generic(typing.get_origin(hint), typing.get_args(hint))


def _values_of_generic(origin: Any, arguments: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values_of(member) for member in arguments])
    if origin is tuple and arguments[-1] is ...:
        return st.lists(values_of(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*(values_of(member) for member in arguments))
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=2)
    assert origin is dict, f"a field of a kind that no message had before: {origin}"
    return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=2)


@pytest.mark.parametrize("kind", ORDERS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_an_order_survives_the_wire(kind: type[m.Message], data: st.DataObject) -> None:
    """An order is decoded as what was encoded, by its tag alone."""
    order = data.draw(values_of(kind))

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(order), type=m.Order) == order


@pytest.mark.parametrize("kind", REPORTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_report_survives_the_wire(kind: type[m.Message], data: st.DataObject) -> None:
    """A report is decoded as what was encoded, by its tag alone."""
    report = data.draw(values_of(kind))

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=m.Report) == report


def test_tags_are_unique() -> None:
    """One word on the wire is one message, whichever direction it goes."""
    kinds: list[type[m.Message]] = [*ORDERS, *REPORTS, *ACTIONS, m.AppliedAction]
    tags = [kind.__struct_config__.tag for kind in kinds]

    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("kind", [*ORDERS, *REPORTS, *ACTIONS], ids=lambda kind: kind.__name__)
def test_every_message_says_what_it_means(kind: type[m.Message]) -> None:
    """A message is frozen, and its docstring says when it is sent."""
    assert kind.__struct_config__.frozen
    assert kind.__doc__ and kind.__doc__ != m.Message.__doc__


@pytest.mark.parametrize(
    "content",
    [
        {"type": "explode"},
        {"request_id": "a"},
        {"type": "checkpoint"},
        {"type": "checkpoint", "request_id": 3},
        {"type": "checkpoint", "request_id": "a", "extra": 1},
        {"type": "act", "request_id": "a", "action": {"type": "inject", "fault": "meteor"}},
        {"type": "hello", "rank": 0, "pid": 1},
    ],
)
def test_what_is_no_order_is_refused(content: dict[str, Any]) -> None:
    """Unknown tags, missing, mistyped and unknown fields, and reports sent down are errors, never ignored."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(content), type=m.Order)
