"""The saves of a run: which are wanted, and a state copied and handed to the writer; the copy is all that the loop pays.

At most one is written at a time. A periodic save that waits is enough for all that come due meanwhile; one that was
asked for keeps its id, for the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from ampd.core.messages import SaveFailed
from ampd.core.phase import Phase
from ampd.engine.boundary import Boundary
from ampd.engine.retention import Keep
from ampd.engine.snapshot import Telemetry
from ampd.engine.stopwatch import Stopwatch
from ampd.engine.trainer import Trainer
from ampd.engine.writer import Files, SaveTask, is_stalled


class Saves:
    """Saves of what `trainer` and `boundary` hold; for the loop's thread, between settled windows."""

    def __init__(
        self, trainer: Trainer, boundary: Boundary, writer: Files, telemetry: Telemetry, watch: Stopwatch,
        declare: Callable[[Phase], object],
    ) -> None:  # fmt: skip
        self._trainer = trainer
        self._boundary = boundary
        self._writer = writer
        self._telemetry = telemetry
        self._watch = watch
        self._declare = declare
        self.prove_room = False
        """Whether a state that is on the disk already is no proof that it can be written."""
        self._wanted: list[str] = []
        self._evaluated: tuple[int, float] | None = None  # a window, and the held-out loss before it

    @property
    def are_wanted(self) -> bool:
        """Some wait for their turn."""
        return bool(self._wanted)

    def want(self, request_id: str = "") -> None:
        """Save as soon as the writer can."""
        if request_id or not self._wanted:
            self._wanted.append(request_id)

    def begin(self, window: int) -> None:
        """Hand over the next one that is wanted, unless one is being written."""
        if self._wanted and not self._writer.is_saving:
            self._save(window, self._wanted.pop(0))

    def finish(self, window: int) -> SaveFailed | None:
        """Save this state for everyone who waits, and wait; returns why it could not be."""
        self.wait()
        self.want()
        while self._wanted:
            self.begin(window)
            self.wait()
        return self._writer.trouble

    def wait(self, *, patiently: bool = True) -> None:
        """Block until no checkpoint is being written; one that does not end is waited for only `patiently`."""
        self._declare(Phase.CHECKPOINT)
        if patiently or not is_stalled(self._writer.trouble):
            self._writer.wait()

    def evaluated(self, window: int, figures: dict[str, float]) -> None:
        """Note what an evaluation said of the state before `window`; a save of that state keeps it."""
        loss = figures.get("loss", math.nan)
        self._evaluated = (window, loss) if math.isfinite(loss) else None

    def _save(self, window: int, request_id: str) -> None:
        self._declare(Phase.CHECKPOINT)
        self._watch.lap("train")
        self._telemetry.flush()
        live = self._boundary.live
        state = {
            **self._trainer.state_dict(),
            "live": msgspec.to_builtins(live.lasting()),
            "position": {"window": window, "row_bytes": self._writer.row_bytes},
            "evaluated": self._evaluation(window),
        }
        stall = self._watch.lap("checkpoint")
        task = SaveTask(
            window=window, seq=live.seq, state=state, keep=self._keep, stall_seconds=stall,
            unjudged=self._trainer.parts.rewind.unjudged, request_id=request_id,
            proves_room=self.prove_room, watchdog=self._trainer.config.watchdog,
        )  # fmt: skip
        self._writer.save(task)

    def _evaluation(self, window: int) -> dict[str, float]:
        if self._evaluated is None or self._evaluated[0] != window:
            return {}
        return {"loss": self._evaluated[1]}

    @property
    def _keep(self) -> Keep:
        section = self._trainer.config.checkpoint
        return Keep(last=section.keep, every=section.keep_every_windows, best=section.keep_best)
