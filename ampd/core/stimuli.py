"""What the supervisor's shell tells the core, and what the core asks of the shell: two closed unions, in pairs.

    Booted                -> Spawn              -> Spawned, later Exited
    Requested             -> Answer             (to each client, exactly once)
                          -> Record             -> Recorded (on disk, or why not)
    Reported              -> SendOrder, Publish
    Signalled("hangup")   -> ReadJobFile        -> Reloaded
    Fired                 <- SetTimer
    Pulsed                -> DumpStacks         -> Dumped, then Kill
                             Kill, SetLogLevel, Exit

The core reads no clock: every stimulus carries `now`, in Unix seconds. A client is a token that only the shell can
read; the core compares it and hands it back.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from ampd.core.change import Difference
from ampd.core.config import JobConfig
from ampd.core.history import Revision
from ampd.core.messages import Act, AppliedAction, Order, Report
from ampd.core.phase import Pulse
from ampd.core.protocol import Event, Refusal, Reply, Request


class TimerKind(enum.Enum):
    """What a timer waits for; there is at most one of each kind."""

    LAST_WORDS = enum.auto()  # reports of a worker that has exited, still on their way
    BACKOFF = enum.auto()  # the wait before a restart
    SAVE_BUDGET = enum.auto()  # the last checkpoint of a worker that was told to stop
    LEAVING = enum.auto()  # a worker with nothing left to do, until it exits


class Timer(msgspec.Struct, frozen=True):
    """One setting of a timer; a later setting of its kind has another serial and makes this one stale."""

    kind: TimerKind
    serial: int


# Journal entries.


class Accepted(msgspec.Struct, frozen=True):
    """An action was admitted, and is going to be sent."""

    act: Act


class Taken(msgspec.Struct, frozen=True):
    """An action took effect, and moved `differences`; `reply` is for its client, or None where nobody is answered now.

    `concluded` is for who asked for a trial, where this ended it.
    """

    applied: AppliedAction
    reply: Reply | None
    differences: tuple[Difference, ...] = ()
    concluded: Reply | None = None


class Rejected(msgspec.Struct, frozen=True):
    """An accepted action was refused after all; `reply` is what its client will be told."""

    reply: Refusal


Entry = Accepted | Taken | Rejected


# Stimuli: shell -> core.


class Stimulus(msgspec.Struct, frozen=True, kw_only=True):
    """Anything that happens to the supervisor."""

    now: float


class Booted(Stimulus, frozen=True):
    """All that a run needs is had, and the journal is read: the job may begin."""

    schedule: tuple[AppliedAction, ...] = ()
    pending: tuple[Act, ...] = ()
    revisions: tuple[Revision, ...] = ()


class Spawned(Stimulus, frozen=True):
    """The worker's process runs."""

    pid: int


class Exited(Stimulus, frozen=True):
    """The worker's process is gone: `returncode` as subprocess has it, `reason` in words where it never ran."""

    returncode: int
    last_lines: tuple[str, ...] = ()
    reason: str = ""


class Requested(Stimulus, frozen=True):
    """A well-formed request of a peer with the role for it; `stored` is the journal's answer to its id."""

    client: object
    author: str
    request: Request
    stored: Reply | None = None


class Reported(Stimulus, frozen=True):
    """A worker said something."""

    rank: int
    report: Report


class Recorded(Stimulus, frozen=True):
    """An entry is on disk, or could not be written (`error`)."""

    entry: Entry
    error: str = ""


class Fired(Stimulus, frozen=True):
    """A timer ran out."""

    timer: Timer


class Signalled(Stimulus, frozen=True):
    """A signal reached the daemon."""

    signal: Literal["interrupt", "terminate", "hangup"]


class Reloaded(Stimulus, frozen=True):
    """The job file was read again: a whole valid configuration, or `error`."""

    config: JobConfig | None = None
    error: str = ""
    hint: str = ""


class Pulsed(Stimulus, frozen=True):
    """A look at the pulses of a worker and of the `peers` on its node, `elapsed_seconds` of the monotonic clock after the last."""

    pulse: Pulse
    elapsed_seconds: float
    peers: tuple[Pulse, ...] = ()
    gone: tuple[int, ...] = ()
    """Ranks of this node whose processes are gone, and had not said that they leave."""


class Dumped(Stimulus, frozen=True):
    """The stacks of the worker are in the file `path`; where there are none it is empty, and `note` says why."""

    path: str
    note: str = ""


AnyStimulus = (
    Booted
    | Spawned
    | Exited
    | Requested
    | Reported
    | Recorded
    | Fired
    | Signalled
    | Reloaded
    | Pulsed
    | Dumped
)


# Instructions: core -> shell.


class Instruction(msgspec.Struct, frozen=True):
    """Anything that the shell does for the core."""


class Spawn(Instruction, frozen=True):
    """Start a worker."""


class SendOrder(Instruction, frozen=True):
    """Send an order to the worker of rank 0."""

    order: Order


class Kill(Instruction, frozen=True):
    """End the worker: gently (SIGTERM: leave without saving), or at once with all its processes (SIGKILL)."""

    gently: bool


class DumpStacks(Instruction, frozen=True):
    """Have these processes write the stacks of all their threads."""

    pids: tuple[int, ...]


class Record(Instruction, frozen=True):
    """Append to the journal, in order, on disk before `Recorded` comes back."""

    entry: Entry


class Answer(Instruction, frozen=True):
    """Send a reply to a client."""

    client: object
    reply: Reply


class Publish(Instruction, frozen=True):
    """Tell followers and the log."""

    event: Event
    level: str


class SetTimer(Instruction, frozen=True):
    """Send `Fired(timer)` after so many seconds."""

    timer: Timer
    seconds: float


class ReadJobFile(Instruction, frozen=True):
    """Read and validate the job file again."""


class SetLogLevel(Instruction, frozen=True):
    """Log from this level on."""

    level: str


class Exit(Instruction, frozen=True):
    """End the daemon. `message` says why where the code is not 0."""

    code: int
    message: str = ""
    hint: str = ""


AnyInstruction = (
    Spawn
    | SendOrder
    | Kill
    | DumpStacks
    | Record
    | Answer
    | Publish
    | SetTimer
    | ReadJobFile
    | SetLogLevel
    | Exit
)
