"""Whether the save that is being written will have an end: a file system that hangs gives no error.

A write to a network file system whose server is gone waits in the kernel, for hours or for ever, and the thread that
waits cannot be asked. So the loop's thread looks at the clock when it looks for trouble: a save that takes longer than
its budget, learned like that of a hang (`core.budgets`), has failed for the time being, as one that met a full disk has,
and `checkpoint.on_disk_error` says what follows. The writing thread is left alone: when the disk comes back it ends its
save, which may then be good, and a run that waited for it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ampd.core.budgets import Budgets
from ampd.core.config import WatchdogSection
from ampd.core.messages import Report, SaveFailed
from ampd.core.phase import Phase
from ampd.core.trouble import Trouble


class SaveClock:
    """Of one save after the other."""

    def __init__(self, report: Callable[[Report], None]) -> None:
        self._report = report
        self._budgets = Budgets()
        self._since = 0.0
        self._budget: float | None = None
        self._window, self._request_id = 0, ""
        self._told: SaveFailed | None = None

    def begin(self, window: int, request_id: str, section: WatchdogSection) -> None:
        """A save is handed over; for the loop's thread, as `stalled` is."""
        self._window, self._request_id = window, request_id
        self._budget = self._budgets.of(Phase.CHECKPOINT, section)
        self._since, self._told = time.monotonic(), None

    def learn(self, seconds: float) -> None:
        """A save took so long; for the thread that wrote it."""
        self._budgets.learn(Phase.CHECKPOINT, seconds)

    def stalled(self) -> SaveFailed | None:
        """That the save, which has not ended, is over its budget; reported the first time that it is seen."""
        if self._told is None and self._budget is not None and time.monotonic() - self._since > self._budget:
            self._told = SaveFailed(
                window=self._window, request_id=self._request_id, reason=Trouble.STALLED,
                message=f"the disk has neither taken nor refused it within its budget of {self._budget:.3g} s",
            )  # fmt: skip
            self._report(self._told)
        return self._told
