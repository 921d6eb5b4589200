"""From supervisor to worker: what to do, and the actions that change a run.

Orders that change the run carry the request's id, so that a report can answer it. What an order changed is
reported as `Applied`, with the window at whose boundary it took effect and a sequence number given by the loop:
the journal keeps those, and a worker that resumes from an earlier checkpoint gets them back in `Start.schedule`
and applies each at its window again.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ampd.core.config import JobConfig
from ampd.core.faults import Fault
from ampd.core.group import Leader
from ampd.core.ledger import Cause
from ampd.core.trial import Terms


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """Anything on the link; `type` tells which."""


# What changes a run at a boundary, whether ordered just now or replayed from the journal.


class Configure(Message, frozen=True, kw_only=True, tag="configure"):
    """Change live keys. `base` is the revision it was decided on; None rebases on whatever holds.

    `dropped` are the keys among them that follow the job file from now on, whatever it will say. With `trial` the
    change is on trial; `reverts` is the revision whose trial this change ends by going back.
    """

    changes: dict[str, Any]
    base: int | None = None
    dropped: tuple[str, ...] = ()
    trial: Terms | None = None
    reverts: int | None = None


class Inject(Message, frozen=True, kw_only=True, tag="inject"):
    """Make the next `windows` windows go wrong, on one rank or on all, to rehearse alerts and to test."""

    fault: Fault
    windows: int = 1
    rank: int | None = None


class Reset(Message, frozen=True, kw_only=True, tag="reset"):
    """Clear a span of statistics, the loss scale, or the fallbacks counted against the limit."""

    what: Literal["stats", "scaler", "fallback-budget"]


class Avoid(Message, frozen=True, kw_only=True, tag="avoid"):
    """Pass over the window that comes next, since it was bad: what a rollback leaves in the journal."""

    cause: Cause


class Divide(Message, frozen=True, kw_only=True, tag="divide"):
    """Divide every micro-batch: what a rank leaves in the journal that ran out of memory while gradients were summed."""

    parts: int


class Confirm(Message, frozen=True, kw_only=True, tag="confirm"):
    """Keep what is on trial. The loop says which `revision` that is, so that a journal can be read."""

    revision: int | None = None


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Revert what is on trial; the loop makes a `Configure` of it, since it knows what was before."""


Action = Configure | Inject | Reset | Avoid | Divide | Confirm
"""What takes effect, and is repeated."""
Asked = Action | Cancel
"""What may be ordered."""


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
    """The first order: everything that a worker needs. `schedule` is the journal, oldest first.

    In a job of several nodes `leader` is who gives it.
    """

    config: JobConfig
    directory: str
    schedule: tuple[AppliedAction, ...] = ()
    pending: tuple[Act, ...] = ()
    leader: Leader | None = None


class Act(Message, frozen=True, kw_only=True, tag="act"):
    """Carry out an action at the next boundary."""

    request_id: str
    action: Asked
    author: str = ""
    reason: str = ""


class Checkpoint(Message, frozen=True, kw_only=True, tag="checkpoint"):
    """Save at the next boundary; answered by `Saved` with the same id."""

    request_id: str


class Pause(Message, frozen=True, kw_only=True, tag="pause"):
    """Hold at the next boundary; answered by `Holding`. With `until_saved` the hold ends when the disk takes a checkpoint."""

    request_id: str
    reason: str = "asked for"
    until_saved: bool = False


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
