"""The figures of one rank, as it reports them several times a second.

They are cumulative and whole: a snapshot that is lost loses nothing, and the last one is all that a supervisor keeps.
"""

from __future__ import annotations

import msgspec

from ampd.core.hardware import Hardware
from ampd.core.histogram import Distributions
from ampd.core.kept import Kept, MemorySaved
from ampd.core.ledger import Counts, Span
from ampd.core.orders import Message
from ampd.core.precision import Precision
from ampd.core.trial import OnTrial
from ampd.core.usage import Usage


class Snapshot(Message, frozen=True, kw_only=True, tag="snapshot"):
    """Figures before `window`.

    `counts` and `usage` are since this worker started, `job` since the job began, `span` since the last reset. Seconds are
    by activity: train data evaluate checkpoint paused telemetry. Memory is in bytes, by kind, at most `memory_limit`; `kept` is
    what windows keep for backward, by precision, and `saved` what the present one saves against float32. `skipped_in_a_row`
    are the windows since the last one that was applied. `worked` are seconds in which this rank waited for no other, on `hardware`.
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
    memory_limit: float = 0.0
    hardware: Hardware = Hardware()
    usage: Usage = Usage()
    figures: dict[str, float] = {}
    zeros: float | None = None
    kept: dict[str, Kept] = {}
    saved: MemorySaved | None = None
    distributions: Distributions = msgspec.field(default_factory=Distributions)
    skipped_in_a_row: int = 0
    trial: OnTrial | None = None
    worked: float = 0.0
