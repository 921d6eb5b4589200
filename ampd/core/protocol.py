"""Between client and daemon: requests, replies and events, as JSON (protocol version 1).

A request is one frame, `{"v": 1, "id": "...", "command": {"op": "set", ...}}`; exactly one reply with the same
`id` follows, and it is final: a change is answered after it took effect, with the revision and the window, and one on
trial after the trial's end (unless `wait` is false). What each operation takes and gives, and what each code means, is answered by `hello` (`core.description`).
Asking again with the same id is safe: the first answer is repeated. Unknown fields, unknown operations and
duplicate keys are refused by code, never ignored. Anything that decodes as far as its id gets a reply.

Events come on a socket of their own, as two frames: the name, then an `Event`. They are numbered from 1 without holes
within a boot, and may be dropped on the way: a `Heartbeat` each second (first frame `heartbeat`), and to each new
subscriber at once, has the last number, and the operation `events` has what was missed.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ampd.core.faults import Fault

VERSION = 1
MAX_REQUEST_BYTES = 65536
"""A request is a few keys; 64 KiB is far above any and far below what could hurt (it bounds each frame)."""


class Role(enum.IntEnum):
    """What a peer may do; each role includes those before it."""

    VIEW = 0
    OPERATE = 1
    ADMIN = 2


class Code(enum.StrEnum):
    """Why a request was refused; a closed set."""

    BAD_FRAME = "BAD_FRAME"
    BAD_JSON = "BAD_JSON"
    TOO_LARGE = "TOO_LARGE"
    BAD_VERSION = "BAD_VERSION"
    UNKNOWN_OP = "UNKNOWN_OP"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    BAD_VALUE = "BAD_VALUE"
    IMMUTABLE = "IMMUTABLE"
    FORBIDDEN = "FORBIDDEN"
    CONFLICT = "CONFLICT"
    BUSY = "BUSY"
    NOT_READY = "NOT_READY"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    APPLY_FAILED = "APPLY_FAILED"
    COMPACTED = "COMPACTED"
    NOT_LEADER = "NOT_LEADER"
    INTERNAL = "INTERNAL"

    @property
    def is_retryable(self) -> bool:
        """The same request may succeed later, unchanged."""
        return self in (Code.BUSY, Code.NOT_READY)


Windows = Annotated[int, Meta(ge=1, le=100_000)]


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", forbid_unknown_fields=True):
    """One operation; its `op` is the verb of `ampctl`."""


class Status(Command, frozen=True, kw_only=True, tag="status"):
    """Where the job is and what precision is doing."""


class Get(Command, frozen=True, kw_only=True, tag="get"):
    """The value of some keys, or of all."""

    keys: tuple[str, ...] = ()


class Set(Command, frozen=True, kw_only=True, tag="set"):
    """Change live keys, all or none; values are words as an operator types them. With `trial`, it may be undone."""

    changes: Annotated[dict[str, str], Meta(min_length=1, max_length=64)]
    if_revision: int | None = None
    dry_run: bool = False
    reason: str = ""
    trial: Windows | None = None
    guards: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    wait: bool = True


class Preset(Command, frozen=True, kw_only=True, tag="preset"):
    """Make the changes of a preset."""

    name: str
    if_revision: int | None = None
    dry_run: bool = False
    reason: str = ""
    trial: Windows | None = None
    guards: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    wait: bool = True


class Stats(Command, frozen=True, kw_only=True, tag="stats"):
    """The AMP ledger: of the job, and since the last reset."""


class Reset(Command, frozen=True, kw_only=True, tag="reset"):
    """Clear statistics, scale or fallback budget."""

    what: Literal["stats", "scaler", "fallback-budget"] = "stats"


class Checkpoint(Command, frozen=True, kw_only=True, tag="checkpoint"):
    """Save now."""


class Pause(Command, frozen=True, kw_only=True, tag="pause"):
    """Hold at the next window boundary."""


class Resume(Command, frozen=True, kw_only=True, tag="resume"):
    """Go on after a pause."""


class Stop(Command, frozen=True, kw_only=True, tag="stop"):
    """Save, then end the job; `save` False ends it as it is."""

    save: bool = True


class Inject(Command, frozen=True, kw_only=True, tag="inject"):
    """Make windows go wrong on purpose; refused unless the job file allows it."""

    fault: Fault
    windows: Windows = 1
    rank: Annotated[int, Meta(ge=0, lt=2**20)] | None = None


class History(Command, frozen=True, kw_only=True, tag="history"):
    """The revisions of the configuration, oldest first; `last` asks for the newest so many."""

    last: Annotated[int, Meta(ge=1)] | None = None


class Diff(Command, frozen=True, kw_only=True, tag="diff"):
    """The keys in which two revisions differ: `old` is the job file, `new` what holds now, where not given."""

    old: int = 1
    new: int | None = None


class Rollback(Command, frozen=True, kw_only=True, tag="rollback"):
    """Make a new revision whose live keys are those of `revision`, or of the one before."""

    revision: int | None = None
    if_revision: int | None = None
    dry_run: bool = False
    reason: str = ""


class Overlay(Command, frozen=True, kw_only=True, tag="overlay"):
    """Which live changes differ from the job file that the daemon was started with."""


class DropOverlay(Command, frozen=True, kw_only=True, tag="overlay-drop"):
    """Make a new revision that goes back to the job file."""

    if_revision: int | None = None
    dry_run: bool = False
    reason: str = ""


class Confirm(Command, frozen=True, kw_only=True, tag="confirm"):
    """Keep the change that is on trial, now."""

    reason: str = ""


class Cancel(Command, frozen=True, kw_only=True, tag="cancel"):
    """Revert the change that is on trial, now: a new revision."""

    reason: str = ""


class Events(Command, frozen=True, kw_only=True, tag="events"):
    """Events after number `since` of this boot, `most` at a time; all that are kept, where it is not given."""

    since: Annotated[int, Meta(ge=0)] | None = None
    boot: str = ""
    most: Annotated[int, Meta(ge=1, le=1000)] = 500


class Hello(Command, frozen=True, kw_only=True, tag="hello"):
    """Who is there and what it speaks: versions, operations, codes, and the JSON Schema of the live keys."""


AnyCommand = (
    Status | Get | Set | Preset | Stats | Reset | Checkpoint | Pause | Resume | Stop | Inject
    | History | Diff | Rollback | Overlay | DropOverlay | Confirm | Cancel | Events | Hello
)  # fmt: skip

# Design: reads need `view`; what an engineer does on shift needs `operate`; ending a job needs `admin`.
ROLE_OF: dict[type[Command], Role] = {
    Status: Role.VIEW, Get: Role.VIEW, Stats: Role.VIEW,
    Set: Role.OPERATE, Preset: Role.OPERATE, Reset: Role.OPERATE, Checkpoint: Role.OPERATE,
    Pause: Role.OPERATE, Resume: Role.OPERATE, Inject: Role.OPERATE, Confirm: Role.OPERATE, Cancel: Role.OPERATE,
    History: Role.VIEW, Diff: Role.VIEW, Overlay: Role.VIEW, Events: Role.VIEW, Hello: Role.VIEW,
    Rollback: Role.ADMIN, DropOverlay: Role.ADMIN, Stop: Role.ADMIN,
}  # fmt: skip


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command with its idempotency key."""

    v: int
    id: Annotated[str, Meta(min_length=8, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
    command: AnyCommand


class Done(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="done"):
    """The command took effect; `result` is the operation's own (shapes: `core.description`)."""

    id: str
    boot: str
    revision: int
    window: int
    result: dict[str, Any]


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="refused"):
    """Nothing was changed; `message` says what was given and expected, `hint` what to do."""

    id: str
    boot: str
    code: Code
    message: str
    retryable: bool = False
    field: str = ""
    hint: str = ""


Reply = Done | Refusal


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, numbered without holes per boot; `name` is dotted, past tense."""

    boot: str
    seq: int
    time: float
    name: str
    fields: dict[str, Any]


HEARTBEAT = "heartbeat"
"""The first frame of a heartbeat; the names of events have a dot."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Sent each second and to each new subscriber: the number of the last event, so that a lost tail shows."""

    boot: str
    last: int
    time: float
