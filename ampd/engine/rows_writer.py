"""The thread of a rank other than 0 that writes its rows of a checkpoint, while its loop goes on.

Rank 0's writer has the loss log, the manifest and the names, and tells how a save ended; here is nothing to report. Where
the ranks cannot talk any more, that is an error of the loop, which raises it when it next looks: a group that has
lost its step saves nothing again.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from ampd.engine import shared_checkpoint
from ampd.engine.ranks import Peers
from ampd.engine.writer import CHECKPOINTS, SaveTask


class RowsWriter:
    """Writes this rank's part of each save, in the order of the saves."""

    def __init__(self, directory: Path, peers: Peers) -> None:
        self._root = directory / CHECKPOINTS
        self._peers = peers
        self._error: Exception | None = None
        self._tasks: queue.SimpleQueue[SaveTask | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ampd-rows", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def save(self, task: SaveTask) -> None:
        """Write in the background; raises what went wrong with an earlier one between the ranks."""
        if self._error is not None:
            raise self._error
        self._tasks.put(task)

    def close(self) -> None:
        """Finish what was handed over and end the thread."""
        self._tasks.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None and self._error is None:
            try:
                shared_checkpoint.follow(self._root, task.state, task.unjudged, self._peers)
            except Exception as error:  # noqa: BLE001  # the thread's top: raised again in the loop
                self._error = error
