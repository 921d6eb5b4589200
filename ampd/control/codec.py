"""Bytes to requests, and nothing else: pure, so that it can be fuzzed without a socket.

What cannot be read is an error with a code, the field, what was given and expected, and the id wherever one can be
found, so that even a bad request gets an answer that its sender can tell from others. The checks go from the
outside in (size, JSON, duplicate keys, version, operation, fields): a client of another version is told so, not
that some field of it is unknown.

The JSON is read twice: msgspec is strict and fast but, like most parsers, lets the last of two equal keys win, and a
request that says `dtype` twice must not be half obeyed; the standard library's parser shows every pair.
"""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import msgspec

from ampd.core import keys
from ampd.core.protocol import (
    HEARTBEAT,
    MAX_REQUEST_BYTES,
    VERSION,
    AnyCommand,
    Code,
    Event,
    Heartbeat,
    Refusal,
    Reply,
    Request,
)  # fmt: skip
from ampd.errors import CommandError, ExitCode

_OPERATIONS: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in get_args(AnyCommand))
_ID = re.compile(rb'"id"\s*:\s*"([A-Za-z0-9_-]{8,64})"')
_SEARCHED_BYTES = 1024
"""An id is searched for this far into what is not JSON; our own client writes it in the first 60 bytes."""


class RequestError(CommandError):
    """What arrived is no request; `request_id` is empty where none could be found."""

    def __init__(
        self, code: Code, message: str, *, field: str = "", hint: str = "", request_id: str = ""
    ) -> None:
        super().__init__(message, code=code, exit_code=ExitCode.REJECTED, hint=hint)
        self.field = field
        self.request_id = request_id

    def as_refusal(self, boot: str) -> Refusal:
        """The reply that tells the peer."""
        return Refusal(
            id=self.request_id, boot=boot, code=Code(self.code), message=str(self),
            retryable=Code(self.code).is_retryable, field=self.field, hint=self.hint,
        )  # fmt: skip


def encode_reply(reply: Reply) -> bytes:
    """One frame; NaN and infinities become null, as JSON has none."""
    return msgspec.json.encode(reply)


def encode_event(event: Event) -> bytes:
    """One frame, to follow one with the event's name, which subscribers match by prefix."""
    return msgspec.json.encode(event)


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    """One frame, to follow one with HEARTBEAT."""
    return msgspec.json.encode(heartbeat)


def decode_told(frames: list[bytes]) -> Event | Heartbeat:
    """What came over the socket of events; raises msgspec.DecodeError for anything else."""
    if len(frames) != 2:
        raise msgspec.DecodeError(f"a message of {len(frames)} frames; an event has two")
    if frames[0] == HEARTBEAT.encode():
        return msgspec.json.decode(frames[1], type=Heartbeat)
    return msgspec.json.decode(frames[1], type=Event)


def decode_request(frame: bytes) -> Request:
    """The request in a frame; raises RequestError."""
    if len(frame) > MAX_REQUEST_BYTES:
        raise RequestError(
            Code.TOO_LARGE, f"the request has {len(frame)} bytes; the limit is {MAX_REQUEST_BYTES}",
            request_id=_search_id(frame),
        )  # fmt: skip
    document = _read_json(frame)
    request_id = document.get("id")
    known_id = (
        request_id
        if isinstance(request_id, str) and _ID.fullmatch(b'"id":"%b"' % request_id.encode())
        else ""
    )
    try:
        _check_version(document)
        _check_operation(document)
        return msgspec.convert(document, Request)
    except msgspec.ValidationError as error:
        raise _explain(error, known_id) from None
    except RequestError as error:
        error.request_id = known_id
        raise


def _read_json(frame: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(frame)
        repeated = _repeated_key(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RequestError(
            Code.BAD_JSON, f"the request is not JSON: {what}", request_id=_search_id(frame)
        ) from None
    if repeated is not None:
        raise RequestError(
            Code.BAD_JSON, f"the key {repeated!r} is given twice in one object", request_id=_search_id(frame),
            hint="give each key once",
        )  # fmt: skip
    if not isinstance(document, dict):
        raise RequestError(
            Code.BAD_JSON,
            f"the request is {_kind(document)}; expected an object",
            hint=f'{{"v": {VERSION}, "id": ...}}',
        )
    return document


def _repeated_key(frame: bytes) -> str | None:
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            repeated.append(next(name for name in names if names.count(name) > 1))
        return table

    json.loads(frame.decode(), object_pairs_hook=look)
    return repeated[0] if repeated else None


def _check_version(document: dict[str, Any]) -> None:
    given = document.get("v")
    if given != VERSION or isinstance(given, bool):
        raise RequestError(
            Code.BAD_VERSION, f"v = {given!r}: this daemon speaks protocol version {VERSION}", field="v",
            hint="use the ampctl that was installed with the daemon",
        )  # fmt: skip


def _check_operation(document: dict[str, Any]) -> None:
    command = document.get("command")
    given = command.get("op") if isinstance(command, dict) else None
    if isinstance(given, str) and given not in _OPERATIONS:
        raise RequestError(
            Code.UNKNOWN_OP, f"{given!r} is not an operation{keys.did_you_mean(given, _OPERATIONS)}",
            field="command.op", hint=f"operations: {', '.join(_OPERATIONS)}",
        )  # fmt: skip


def _explain(error: msgspec.ValidationError, request_id: str) -> RequestError:
    """msgspec's "Object missing required field `what` - at `$.command`", with the whole field's name."""
    reason, _, place = str(error).partition(" - at `$")
    parent = re.sub(r"\[[^\]]*\]", "", place.strip("`.")).strip(".")
    named = re.search(r"field `([^`]*)`", reason)
    field = ".".join(part for part in (parent, named.group(1) if named else "") if part)
    return RequestError(Code.BAD_VALUE, f"{field or 'request'}: {reason}", field=field, request_id=request_id)


def _search_id(frame: bytes) -> str:
    found = _ID.search(frame[:_SEARCHED_BYTES])
    return found.group(1).decode() if found else ""


def _kind(value: object) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )
