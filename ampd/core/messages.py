"""Between supervisor and worker, msgpack on the wire: orders down (`core.orders`), reports up (with `core.snapshot`).
One tagged union each.

Read as a namespace: `from ampd.core import messages as m`, then `m.Stop` is an order and `m.Saved` a report.
"""

from __future__ import annotations

from typing import Literal

from ampd.core.change import Difference
from ampd.core.config import JobConfig
from ampd.core.faults import Fault
from ampd.core.group import Leader
from ampd.core.ledger import Cause
from ampd.core.orders import (
    Act,
    Action,
    AppliedAction,
    Asked,
    Avoid,
    Cancel,
    Checkpoint,
    Configure,
    Confirm,
    Divide,
    Inject,
    Leave,
    Message,
    Order,
    Pause,
    Reset,
    Resume,
    Start,
    Stop,
)  # fmt: skip
from ampd.core.precision import Capability, Choice, Precision
from ampd.core.snapshot import Snapshot
from ampd.core.trouble import Trouble

__all__ = [
    "Act", "Action", "Applied", "AppliedAction", "Asked", "Avoid", "Cancel", "Checkpoint", "Configure", "Confirm", "Diverged", "Divide", "Evaluated", "Fault", "FellBack", "Finished",
    "Going", "Hello", "Holding", "Inject", "Joined", "Leave", "LimitReached", "Lost", "Message", "Order", "Pause", "Quarantined", "Ready",
    "Refused", "Report", "Reset", "Result", "Resume", "RolledBack", "SaveFailed", "Saved", "ScaleMoved", "ScaleStuck", "SetAside",
    "Skipped", "Snapshot", "Split", "Start", "Stop", "Warned", "Widened",
]  # fmt: skip

Result = Literal["completed", "stopped", "failed"]


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """The first report: who speaks, by its number on its node. Sent before torch is loaded."""

    rank: int
    pid: int


class Joined(Message, frozen=True, kw_only=True, tag="joined"):
    """The ranks of this node are in a group of several nodes, from `first_rank` on; `leader` has rank 0."""

    first_rank: int
    world: int
    leader: Leader


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """The model is built and state is loaded; the loop begins at `window`, on `world` ranks."""

    window: int
    total_windows: int
    windows_per_epoch: int
    resumed: bool
    revision: int
    config: JobConfig
    capability: Capability
    choice: Choice
    parameters: int
    torch_version: str
    world: int = 1


class Applied(Message, frozen=True, kw_only=True, tag="applied"):
    """An action took effect; `differences` are the keys that it moved.

    `choice` and `lr` are what holds since, as a snapshot has it; of a loop with rates of its own `lr` is None.
    """

    applied: AppliedAction
    differences: tuple[Difference, ...] = ()
    choice: Choice | None = None
    lr: float | None = None


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """An order could not be carried out, and changed nothing."""

    request_id: str
    code: str
    message: str
    field: str = ""
    hint: str = ""


class Saved(Message, frozen=True, kw_only=True, tag="saved"):
    """A checkpoint of the state before `window` is on disk and verified; `stall` is what it cost the loop."""

    window: int
    path: str
    bytes: int
    seconds: float
    stall_seconds: float
    request_id: str = ""


class SaveFailed(Message, frozen=True, kw_only=True, tag="save-failed"):
    """A checkpoint could not be written; the previous one stands."""

    window: int
    message: str
    reason: Trouble = Trouble.OTHER
    request_id: str = ""


class SetAside(Message, frozen=True, kw_only=True, tag="set-aside"):
    """A damaged checkpoint was renamed and the one before it will be used."""

    path: str
    reason: str


class Holding(Message, frozen=True, kw_only=True, tag="holding"):
    """The loop holds at the boundary before `window`; `reason` says who asked. With `until_saved` it will go on by itself."""

    window: int
    reason: str
    request_id: str = ""
    until_saved: bool = False


class Going(Message, frozen=True, kw_only=True, tag="going"):
    """The loop goes on from a hold."""

    window: int
    request_id: str = ""


class FellBack(Message, frozen=True, kw_only=True, tag="fell-back"):
    """A window was not finite at `tried` and was replayed; `applied_at` is where it succeeded, if it did."""

    window: int
    cause: Cause
    tried: Precision
    applied_at: Precision | None


class Skipped(Message, frozen=True, kw_only=True, tag="skipped"):
    """A window was never applied."""

    window: int
    cause: Cause


class Quarantined(Message, frozen=True, kw_only=True, tag="quarantined"):
    """A window that was never applied is kept at `path`, with its inputs and generators."""

    window: int
    cause: Cause
    path: str


class ScaleStuck(Message, frozen=True, kw_only=True, tag="scale-stuck"):
    """The loss scale is at its floor and windows are still not finite: it cannot help any more."""

    window: int
    scale: float


class RolledBack(Message, frozen=True, kw_only=True, tag="rolled-back"):
    """The run goes back to its last checkpoint, and will pass over `window`."""

    window: int
    cause: Cause


class ScaleMoved(Message, frozen=True, kw_only=True, tag="scale-moved"):
    """The loss scale grew or backed off."""

    window: int
    old: float
    new: float


class LimitReached(Message, frozen=True, kw_only=True, tag="limit-reached"):
    """max_fp32_fallbacks was passed in this epoch; `action` is what on_fallback_limit did."""

    window: int
    epoch: int
    fallbacks: int
    action: str


class Widened(Message, frozen=True, kw_only=True, tag="widened"):
    """A module runs in float32 from now on, since a Python constant in it does not fit float16."""

    window: int
    module: str
    location: str


class Split(Message, frozen=True, kw_only=True, tag="split"):
    """The device ran out of memory; every micro-batch is divided into `parts` from now on."""

    window: int
    parts: int
    message: str


class Diverged(Message, frozen=True, kw_only=True, tag="diverged"):
    """Before `window`, the weights of `ranks` were others than those of the rest; `parameter` is the first that differed."""

    window: int
    ranks: tuple[int, ...]
    parameter: str


class Evaluated(Message, frozen=True, kw_only=True, tag="evaluated"):
    """The workload's own figures on held-out data, before `window`."""

    window: int
    figures: dict[str, float]
    seconds: float


class Warned(Message, frozen=True, kw_only=True, tag="warned"):
    """Something an operator should know, said once; `topic` is a constant word."""

    topic: str
    message: str


class Lost(Message, frozen=True, kw_only=True, tag="lost"):
    """A worker dropped this many events, since its link was full."""

    events: int


class Finished(Message, frozen=True, kw_only=True, tag="finished"):
    """The last report of a worker: the result of the run, whatever the exit code says."""

    result: Result
    window: int
    message: str = ""
    hint: str = ""
    exit_code: int = 0
    request_id: str = ""


Report = (
    Hello | Joined | Ready | Applied | Refused | Saved | SaveFailed | SetAside | Holding | Going | FellBack | Skipped
    | Quarantined | RolledBack | ScaleStuck | ScaleMoved | LimitReached | Widened | Split | Diverged | Evaluated | Warned | Lost | Finished
    | Snapshot
)  # fmt: skip
