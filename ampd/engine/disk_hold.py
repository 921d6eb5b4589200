"""A hold that ends by itself: a checkpoint could not be written, and the run waits until one can.

While the loop holds, it asks for another save now and then, twice as late each time up to a minute, so that a disk that
stays full for a night is not told of a thousand times. Whoever made room need not wait: `ampctl checkpoint` is a try too.

A worker that is lost meanwhile leaves the hold to the next one. That one resumes from a checkpoint, so its state is on
the disk already, and a save would succeed by doing nothing: while a loop holds, a save has to prove that there is room.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ampd.core.config import CheckpointSection
from ampd.core.messages import Pause, SaveFailed
from ampd.engine.ranks import Ranks
from ampd.engine.writer import Files, is_stalled

_FIRST_SECONDS, _LAST_SECONDS = 1.0, 60.0


class DiskHold:
    """The retries of one hold; for the loop's thread."""

    def __init__(self, writer: Files, ask: Callable[[], object], ranks: Ranks) -> None:
        self._writer = writer
        self._ask = ask
        self._ranks = ranks  # their clocks differ, and all must ask at once
        self._wait = _FIRST_SECONDS
        self._due = time.monotonic() + self._wait

    def is_over(self, section: CheckpointSection) -> bool:
        """Whether a save succeeded, or one need not be waited for any more; asks for the next try when it is due."""
        if self._writer.is_saving:
            return False
        if of_disk(self._writer.trouble) is None or section.on_disk_error != "pause":
            return True
        if self._ranks.as_first(time.monotonic() >= self._due):
            self._wait = min(2 * self._wait, _LAST_SECONDS)
            self._due = time.monotonic() + self._wait
            self._ask()
        return False


def of_disk(trouble: SaveFailed | None) -> SaveFailed | None:
    """A failure that another try might not meet."""
    return trouble if trouble is not None and trouble.reason.is_of_disk else None


def hold_for(trouble: SaveFailed) -> Pause:
    """The hold, with what an operator reads who asks why the job is paused."""
    again = "it is tried again until it succeeds, at once with `ampctl checkpoint`"
    if is_stalled(trouble):
        again = "it is waited for"  # one at a time: its thread is still at it
    reason = f"{failure(trouble)}; {again}; `ampctl resume` goes on without it"
    return Pause(request_id="", reason=reason, until_saved=True)


def failure(trouble: SaveFailed) -> str:
    """What happened, in words."""
    return f"the checkpoint of window {trouble.window} could not be written: {trouble.message}"
