"""What the job file has happen at which boundaries: evaluations, checkpoints, the end of an epoch and of the job.

A pure function of the window's number and of what is live, so that all ranks of a group agree without asking.
"""

from __future__ import annotations

from ampd.engine.trainer import Trainer
from ampd.engine.workload import Evaluating


class Milestones:
    """Those of one trainer's job."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def is_one(self, window: int) -> bool:
        """Whether something happens before `window` that needs every window settled."""
        config, workload = self._trainer.config, self._trainer.parts.workload
        every = config.evaluate.every_windows
        return (
            window >= self._trainer.total_windows
            or window % workload.windows_per_epoch == 0
            or window % config.checkpoint.every_windows == 0
            or (bool(every) and window % every == 0)
        )

    def is_evaluated(self, window: int) -> bool:
        """Whether the workload measures itself; at the end of the job it does in any case, if at all."""
        every = self._trainer.config.evaluate.every_windows
        is_due = bool(every) and (window % every == 0 or window == self._trainer.total_windows)
        return is_due and isinstance(self._trainer.parts.workload, Evaluating)

    def is_compared(self, window: int) -> bool:
        """Whether the ranks look if they still have the same weights."""
        every, ranks = self._trainer.config.distributed.check_every_windows, self._trainer.parts.ranks
        return bool(every) and window % every == 0 and ranks.world > 1 and not ranks.is_sharded

    def is_saved(self, window: int) -> bool:
        """Whether a checkpoint is due; the last one is the loop's."""
        every = self._trainer.config.checkpoint.every_windows
        return window % every == 0 and window != self._trainer.total_windows
