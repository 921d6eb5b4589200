"""What the job file has happen at which boundaries: evaluations, checkpoints, the end of an epoch and of the job.

A pure function of the window's number and of what is live, so that all ranks of a group agree without asking. The next one
is worked out once and not looked for at each boundary.
"""

from __future__ import annotations

from ampd.core.config import JobConfig
from ampd.engine.trainer import Trainer
from ampd.engine.workload import Evaluating


class Milestones:
    """Those of one trainer's job."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._config: JobConfig | None = None  # under which there is none from `_since` on and before `_next`
        self._since = self._next = 0

    def is_one(self, window: int) -> bool:
        """Whether something happens before `window` that needs every window settled."""
        config = self._trainer.config
        if config is not self._config or not self._since <= window <= self._next:
            self._config, self._since, self._next = config, window, self._first_from(window, config)
        return window == self._next

    def _first_from(self, window: int, config: JobConfig) -> int:
        periods = (
            self._trainer.parts.workload.windows_per_epoch, config.checkpoint.every_windows, config.evaluate.every_windows,
        )  # fmt: skip
        return min(
            max(window, self._trainer.total_windows), *(-(-window // each) * each for each in periods if each)
        )

    def is_evaluated(self, window: int) -> bool:
        """Whether the workload measures itself; at the end of the job it does in any case, if at all."""
        every = self._trainer.config.evaluate.every_windows
        is_due = bool(every) and (window % every == 0 or window == self._trainer.total_windows)
        return is_due and isinstance(self._trainer.parts.workload, Evaluating)

    def is_compared(self, window: int) -> bool:
        """Whether the ranks look if they still have the same weights."""
        every, ranks = self._trainer.config.distributed.check_every_windows, self._trainer.parts.ranks
        return ranks.world > 1 and bool(every) and window % every == 0 and not ranks.is_sharded

    def is_saved(self, window: int) -> bool:
        """Whether a checkpoint is due; the last one is the loop's."""
        every = self._trainer.config.checkpoint.every_windows
        return window % every == 0 and window != self._trainer.total_windows
