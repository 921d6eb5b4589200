"""Reading requests: every code, the id wherever it can be found, and nothing that crashes the reader."""

from __future__ import annotations

import json
import re
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from ampd.control import codec
from ampd.core import protocol
from ampd.core.protocol import MAX_REQUEST_BYTES, Code, Request

ID = "0190-abcdef"
GOOD = {"v": 1, "id": ID, "command": {"op": "set", "changes": {"dtype": "float16"}, "reason": 'a "quoted" é'}}
FUZZ = settings(max_examples=300, derandomize=True, deadline=None)
WORDS = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def refused(document: Any) -> codec.RequestError:
    frame = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(codec.RequestError) as caught:
        codec.decode_request(frame)
    return caught.value


def read(frame: bytes) -> Request | codec.RequestError:
    """What became of a frame; any other exception is a failure of the reader."""
    try:
        return codec.decode_request(frame)
    except codec.RequestError as error:
        return error


def test_a_good_request_is_read() -> None:
    """A request comes out with its command and id."""
    request = codec.decode_request(json.dumps(GOOD).encode())

    assert request.id == ID
    assert request.command == protocol.Set(changes={"dtype": "float16"}, reason='a "quoted" é')


@pytest.mark.parametrize("frame", [b"", b"{", b"nonsense", b"NaN", b"\xff\xfe", b'{"v": 1}}', b"[" * 60000])
def test_what_is_not_json_is_bad_json(frame: bytes) -> None:
    """Anything but JSON, even 60000 levels of it, is refused as BAD_JSON."""
    assert refused(frame).code == Code.BAD_JSON


@pytest.mark.parametrize("half", [r"\ud800", r"\ud800x", r"x\udc00"])
def test_half_a_character_is_bad_json(half: str) -> None:
    """A lone surrogate cannot be written back in a reply, so it is not let in."""
    frame = f'{{"v":1,"id":"{ID}","command":{{"op":"get","keys":["{half}"]}}}}'

    assert refused(frame.encode()).code == Code.BAD_JSON


@pytest.mark.parametrize("document", [[], 3, "set", None, True])
def test_a_request_is_an_object(document: Any) -> None:
    """JSON that is no object is refused and says what it is."""
    error = refused(document)

    assert error.code == Code.BAD_JSON
    assert "expected an object" in str(error)


@pytest.mark.parametrize(
    "inner",
    ['"id": "other-id-1"', '"v": 1', '"command": {"op": "get"}'],
)
def test_a_key_given_twice_is_refused(inner: str) -> None:
    """Two equal keys in the request are refused, where most parsers take the last."""
    error = refused(f'{{"v": 1, "id": "{ID}", "command": {{"op": "status"}}, {inner}}}'.encode())

    assert (error.code, error.request_id) == (Code.BAD_JSON, ID)
    assert "given twice" in str(error)


def test_a_changed_key_given_twice_is_refused() -> None:
    """Two values for one key of `set` are refused by that key's name."""
    frame = (
        f'{{"v":1,"id":"{ID}","command":{{"op":"set","changes":{{"dtype":"float16","dtype":"float32"}}}}}}'
    )

    assert "'dtype'" in str(refused(frame.encode()))


def test_an_escaped_key_is_the_same_key() -> None:
    """Writing a key with an escape does not hide that it is given twice."""
    frame = f'{{"v":1,"id":"{ID}","command":{{"op":"set","changes":{{"a":"1","\\u0061":"2"}}}}}}'

    assert refused(frame.encode()).code == Code.BAD_JSON


def test_a_large_request_is_refused_with_its_id() -> None:
    """One byte over the limit is TOO_LARGE, and still carries the id."""
    frame = json.dumps(GOOD).encode()

    codec.decode_request(frame.ljust(MAX_REQUEST_BYTES))
    error = refused(frame.ljust(MAX_REQUEST_BYTES + 1))

    assert (error.code, error.request_id) == (Code.TOO_LARGE, ID)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5, [1]])
def test_another_version_is_told_so(version: Any) -> None:
    """A client of another protocol hears BAD_VERSION before any complaint about fields it alone knows."""
    error = refused({"v": version, "id": ID, "command": {"op": "new"}, "unknown": 1})

    assert (error.code, error.field, error.request_id) == (Code.BAD_VERSION, "v", ID)


def test_an_unknown_operation_has_a_nearest_one() -> None:
    """A misspelt operation gets a did-you-mean."""
    error = refused({"v": 1, "id": ID, "command": {"op": "chekpoint"}})

    assert (error.code, error.field, error.request_id) == (Code.UNKNOWN_OP, "command.op", ID)
    assert "did you mean 'checkpoint'" in str(error)


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ({}, "command.op"),
        ({"op": 3}, "command.op"),
        ({"op": "set"}, "command.changes"),
        ({"op": "set", "changes": {}}, "command.changes"),
        ({"op": "set", "changes": {"dtype": 16}}, "command.changes"),
        ({"op": "get", "keys": [1]}, "command.keys"),
        ({"op": "get", "kees": []}, "command.kees"),
        ({"op": "inject", "fault": "fire"}, "command.fault"),
        ({"op": "inject", "fault": "overflow", "windows": 0}, "command.windows"),
        ({"op": "reset", "what": "all"}, "command.what"),
        ("status", "command"),
        (None, "command"),
    ],
)
def test_a_bad_field_is_named(command: Any, field: str) -> None:
    """A field that is missing, unknown or wrong is BAD_VALUE with its whole name."""
    error = refused({"v": 1, "id": ID, "command": command})

    assert (error.code, error.field, error.request_id) == (Code.BAD_VALUE, field, ID)


@pytest.mark.parametrize(
    "request_id", ["short", "x" * 65, "with space", "new\nline0", 12345678, None, "\N{SNOWMAN}" * 8]
)
def test_a_bad_id_is_refused_and_not_repeated(request_id: Any) -> None:
    """An id that is not one is refused by field, and is not echoed as if it were good."""
    error = refused({"v": 1, "id": request_id, "command": {"op": "status"}})

    assert (error.code, error.field, error.request_id) == (Code.BAD_VALUE, "id", "")


def test_an_error_becomes_a_refusal() -> None:
    """Everything that the error knows is in the reply."""
    error = refused({"v": 1, "id": ID, "command": {"op": "get", "kees": []}})

    refusal = error.as_refusal("boot-7")

    assert (refusal.id, refusal.boot, refusal.code, refusal.field) == (
        ID,
        "boot-7",
        Code.BAD_VALUE,
        "command.kees",
    )


def test_nan_in_a_result_becomes_null() -> None:
    """A figure that is not a number does not make a reply that JSON readers refuse."""
    reply = protocol.Done(id=ID, boot="b", revision=1, window=2, result={"loss": float("nan")})

    assert json.loads(codec.encode_reply(reply))["result"] == {"loss": None}


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(frame: bytes) -> None:
    """No bytes make the reader raise anything but its own error."""
    assert isinstance(read(frame), Request | codec.RequestError)


@FUZZ
@given(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3))
def test_a_damaged_request_is_read_or_refused(at: int, cut: int, put: bytes) -> None:
    """A good request with some bytes cut out or put in is read or refused, and the answer can be sent."""
    frame = json.dumps(GOOD).encode()

    outcome = read(frame[:at] + put + frame[at + cut :])

    if isinstance(outcome, codec.RequestError):
        assert codec.encode_reply(outcome.as_refusal("b"))
        assert outcome.request_id == "" or re.fullmatch(r"[A-Za-z0-9_-]{8,64}", outcome.request_id)


@FUZZ
@given(JSON, JSON, JSON)
def test_any_json_is_read_or_refused(version: Any, request_id: Any, command: Any) -> None:
    """Any JSON in the right places is read or refused, and the answer can be sent."""
    outcome = read(json.dumps({"v": version, "id": request_id, "command": command}).encode())

    if isinstance(outcome, codec.RequestError):
        assert msgspec.json.decode(codec.encode_reply(outcome.as_refusal("b")))


@FUZZ
@given(
    st.dictionaries(WORDS, WORDS, min_size=1, max_size=4), st.none() | st.integers(1, 9), st.booleans(), WORDS
)
def test_what_a_client_writes_is_what_is_read(
    changes: dict[str, str], if_revision: int | None, dry_run: bool, reason: str
) -> None:
    """Every well-formed `set` survives the wire unchanged."""
    command = protocol.Set(changes=changes, if_revision=if_revision, dry_run=dry_run, reason=reason)
    request = Request(v=1, id=ID, command=command)

    assert codec.decode_request(msgspec.json.encode(request)) == request
