"""What the supervisor knows of its job, in one place: read by `ampctl status`, /metrics, the page and the progress bar.

The pure core (`core.supervisor`) is its only writer; everything else renders it. Nothing here asks the worker.
"""

from __future__ import annotations

import msgspec

from ampd.core.config import JobConfig
from ampd.core.group import Leader, Place
from ampd.core.histogram import CHECKPOINT_SECONDS, Distributions, Histogram
from ampd.core.lately import Lately
from ampd.core.ledger import Counts
from ampd.core.lifecycle import JobState
from ampd.core.messages import Evaluated, Finished, Holding, Ready, Saved, Snapshot
from ampd.core.phase import Standing
from ampd.core.precision import Choice
from ampd.core.recent import Recent
from ampd.core.trace import Trace
from ampd.core.usage import Usage, together


class JobView(msgspec.Struct, kw_only=True):
    """One job as its supervisor sees it. Times are Unix seconds; counters are since this daemon started."""

    name: str
    directory: str
    boot: str
    """Differs for every start of the daemon."""
    pid: int
    endpoint: str
    http: str
    """host:port that /metrics is served on; the real port where the job file says 0."""
    started: float
    config: JobConfig
    """What holds now, live changes included."""
    is_attached: bool = False
    """The worker is a process that runs its own loop: not ours to start again, to stop or to save."""
    place: Place = Place()
    """Which node of its job this is."""
    leader: Leader | None = None
    """The node that this one follows; None where it leads, or is alone."""
    first_rank: int = 0
    """The number in the job of this node's first rank."""
    world: int = 0
    """Ranks in the job, on all of its nodes; 0 until they have met, and in a job of one node."""
    state: JobState = JobState.STARTING
    state_since: float = 0.0
    state_reason: str = ""
    revision: int = 1
    config_sha256: str = ""
    """Of the configuration that this daemon started with."""
    ready: Ready | None = None
    """What the present worker said when it was ready; what the one before said until then."""
    choice: Choice | None = None
    """The precision of first attempts now, with its reason."""
    snapshots: dict[int, Snapshot] = {}
    """The last snapshot of each rank of the present worker; of the one before until a new one is ready."""
    last_progress: float = 0.0
    """When the window number last moved."""
    hold: Holding | None = None
    """For what the job is paused, or was the last time."""
    standing: Standing | None = None
    """The phase that the present worker is in, for how long without progress, and how long it may be."""
    past: Counts = msgspec.field(default_factory=Counts)
    """Sum of the process counts of earlier workers of this daemon: /metrics shows past + present."""
    past_seconds: dict[str, float] = {}
    """The same for seconds by activity."""
    past_worked: dict[int, float] = {}
    """The same for the seconds in which each rank waited for no other."""
    past_distributions: Distributions = msgspec.field(default_factory=Distributions)
    """The same for how long windows took and how large gradients were."""
    state_seconds: dict[str, float] = {}
    """Seconds in each state since this daemon started, as it observed them: no step of the wall clock is in them."""
    past_usage: dict[int, Usage] = {}
    """What each rank used up under earlier workers."""
    heard: dict[int, float] = {}
    """When each rank last said anything."""
    windows_recomputed: int = 0
    """Windows that were run again after a restart from an earlier checkpoint."""
    restarts: dict[str, int] = {}
    """Worker restarts by reason: crashed, killed, hung, rolled_back, rank_lost."""
    requests: dict[str, int] = {}
    """Control requests by operation."""
    refusals: dict[str, int] = {}
    """Refused control requests by code."""
    changes: dict[str, int] = {}
    """Accepted configuration changes by who made them: operator, policy."""
    precision_changes: dict[str, int] = {}
    """Times that the precision of first attempts changed while the job ran, by the new one."""
    events_lost: int = 0
    """Events that workers had to drop."""
    checkpoints: int = 0
    checkpoint_seconds: Histogram = msgspec.field(default_factory=lambda: Histogram.over(CHECKPOINT_SECONDS))
    checkpoint_failures: dict[str, int] = {}
    """Checkpoints that could not be written, by reason."""
    checkpoints_set_aside: int = 0
    last_saved: Saved | None = None
    last_saved_at: float = 0.0
    last_evaluated: Evaluated | None = None
    best_loss: float | None = None
    """The lowest held-out "loss" that this daemon has seen."""
    limit_reached: int = 0
    events: int = 0
    """Number of the last event."""
    told: dict[str, int] = {}
    """Events by name."""
    told_at: dict[str, float] = {}
    """When an event of each name was last told."""
    levels: dict[str, int] = {}
    """Events by how severe they are."""
    recent: Recent = msgspec.field(default_factory=Recent)
    """The last events, folded where they come with every window."""
    trace: Trace = msgspec.field(default_factory=Trace)
    """How loss, norm and scale moved since this daemon started."""
    lately: Lately = msgspec.field(default_factory=Lately)
    """What was counted in the last hour: what alerts are judged by."""
    result: Finished | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """The last snapshot of rank 0."""
        return self.snapshots.get(0)

    @property
    def counts(self) -> Counts:
        """Counts since this daemon started, over all its workers: monotonic."""
        return self.past if self.snapshot is None else self.past.plus(self.snapshot.counts)

    @property
    def distributions(self) -> Distributions:
        """The same for how long windows took and how large gradients were."""
        last = self.snapshot
        return self.past_distributions if last is None else self.past_distributions.plus(last.distributions)

    @property
    def usage(self) -> dict[int, Usage]:
        """What each rank used up since this daemon started."""
        return together(self.past_usage, {rank: last.usage for rank, last in self.snapshots.items()})

    @property
    def as_leader(self) -> Leader | None:
        """What the other nodes are told of this one, where it leads; None in a job of one node."""
        if not self.place.node or self.leader is not None:
            return None
        host = self.place.host
        address, _colon, port = self.config.control.listen.rpartition(":")
        is_anywhere = address in ("tcp://0.0.0.0", "tcp://[::]", "tcp://*")
        return Leader(
            host=host,
            endpoint=f"tcp://{host}:{port}" if is_anywhere else self.config.control.listen,
        )

    def spend(self, seconds: float) -> None:
        """So much more time in the present state."""
        state = self.state.value
        self.state_seconds = self.state_seconds | {state: self.state_seconds.get(state, 0.0) + seconds}
