"""Between supervisor and worker: orders down, reports up. One tagged union each, msgpack on the wire.

Orders that change the run carry the request's id, so that a report can answer it. What an order changed is
reported as `Applied`, with the window at whose boundary it took effect and a sequence number given by the loop:
the journal keeps those, and a worker that resumes from an earlier checkpoint gets them back in `Start.schedule`
and applies each at its window again.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ampd.core.change import Difference
from ampd.core.config import JobConfig
from ampd.core.kept import Kept, MemorySaved
from ampd.core.ledger import Cause, Counts, Span
from ampd.core.precision import Capability, Choice, Precision

Result = Literal["completed", "stopped", "failed"]
Fault = Literal["overflow", "nan-loss", "nan-grad", "constant", "oom"]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """Anything on the link; `type` tells which."""


# What changes a run at a boundary, whether ordered just now or replayed from the journal.


class Configure(Message, frozen=True, kw_only=True, tag="configure"):
    """Change live keys. `base` is the revision it was decided on; None rebases on whatever holds."""

    changes: dict[str, Any]
    base: int | None = None


class Inject(Message, frozen=True, kw_only=True, tag="inject"):
    """Make the next `windows` windows go wrong, to rehearse alerts and to test."""

    fault: Fault
    windows: int = 1


class Reset(Message, frozen=True, kw_only=True, tag="reset"):
    """Clear a span of statistics, the loss scale, or the fallbacks counted against the limit."""

    what: Literal["stats", "scaler", "fallback-budget"]


Action = Configure | Inject | Reset


class AppliedAction(Message, frozen=True, kw_only=True, tag="applied-action"):
    """An action that took effect: the `seq`-th of the job, at the boundary before `window`."""

    seq: int
    window: int
    revision: int
    action: Action
    request_id: str = ""
    author: str = ""
    reason: str = ""


# Orders: supervisor -> worker.


class Start(Message, frozen=True, kw_only=True, tag="start"):
    """The first order: everything that a worker needs. `schedule` is the journal, oldest first."""

    config: JobConfig
    directory: str
    schedule: tuple[AppliedAction, ...] = ()
    pending: tuple[Act, ...] = ()


class Act(Message, frozen=True, kw_only=True, tag="act"):
    """Carry out an action at the next boundary."""

    request_id: str
    action: Action
    author: str = ""
    reason: str = ""


class Checkpoint(Message, frozen=True, kw_only=True, tag="checkpoint"):
    """Save at the next boundary; answered by `Saved` with the same id."""

    request_id: str


class Pause(Message, frozen=True, kw_only=True, tag="pause"):
    """Hold at the next boundary; answered by `Holding`."""

    request_id: str


class Resume(Message, frozen=True, kw_only=True, tag="resume"):
    """Go on after a pause; answered by `Going`."""

    request_id: str


class Stop(Message, frozen=True, kw_only=True, tag="stop"):
    """End at the next boundary, with a checkpoint where `save`; answered by `Finished`."""

    request_id: str = ""
    save: bool = True


class Leave(Message, frozen=True, kw_only=True, tag="leave"):
    """The worker's own order on SIGTERM: the group is torn down, so end unsaved unless a Stop came before."""


Order = Start | Act | Checkpoint | Pause | Resume | Stop | Leave


# Reports: worker -> supervisor.


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """The first report: who speaks. Sent before torch is loaded."""

    rank: int
    pid: int


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """The model is built and state is loaded; the loop begins at `window`."""

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


class Applied(Message, frozen=True, kw_only=True, tag="applied"):
    """An action took effect; `differences` are the keys that it moved."""

    applied: AppliedAction
    differences: tuple[Difference, ...] = ()
    choice: Choice | None = None


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
    request_id: str = ""


class SetAside(Message, frozen=True, kw_only=True, tag="set-aside"):
    """A damaged checkpoint was renamed and the one before it will be used."""

    path: str
    reason: str


class Holding(Message, frozen=True, kw_only=True, tag="holding"):
    """The loop holds at the boundary before `window`; `reason` says who asked."""

    window: int
    reason: str
    request_id: str = ""


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


class Evaluated(Message, frozen=True, kw_only=True, tag="evaluated"):
    """The workload's own figures on held-out data, before `window`."""

    window: int
    figures: dict[str, float]
    seconds: float


class Warned(Message, frozen=True, kw_only=True, tag="warned"):
    """Something an operator should know, said once; `topic` is a constant word."""

    topic: str
    message: str


class Finished(Message, frozen=True, kw_only=True, tag="finished"):
    """The last report of a worker: the result of the run, whatever the exit code says."""

    result: Result
    window: int
    message: str = ""
    hint: str = ""
    exit_code: int = 0
    request_id: str = ""


class Snapshot(Message, frozen=True, kw_only=True, tag="snapshot"):
    """Cumulative figures, several times a second; losing one loses nothing.

    `counts` are since this worker started, `job` since the job began, `span` since the last reset. Seconds are by
    activity: train data evaluate checkpoint paused. Memory is in bytes, by kind; `kept` is what windows keep for
    backward, by precision, and `saved` what the present one saves against float32.
    """

    rank: int
    window: int
    total_windows: int
    epoch: int
    revision: int
    precision: Precision
    counts: Counts
    job: Counts
    span: Counts
    span_scale: Span
    span_loss: Span
    loss: float | None
    grad_norm: float | None
    lr: float
    scale: float | None
    seconds: dict[str, float]
    memory: dict[str, float]
    figures: dict[str, float] = {}
    kept: dict[str, Kept] = {}
    saved: MemorySaved | None = None


Report = (
    Hello | Ready | Applied | Refused | Saved | SaveFailed | SetAside | Holding | Going | FellBack | Skipped
    | Quarantined | ScaleStuck | ScaleMoved | LimitReached | Widened | Split | Evaluated | Warned | Finished | Snapshot
)  # fmt: skip
