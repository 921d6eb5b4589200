"""The files of a group: rank 0 writes them, and all ranks know alike how a save stands.

A loop decides by two things that only a writer knows: whether a checkpoint is still being written, and whether the
last one failed. Ranks that decided by what they happen to see would part ways, so both are asked of rank 0, with
a broadcast at each boundary for as long as a save is open and none at any other time. Where ranks share the weights each
writes a part (`rows_writer`); how the whole stands is rank 0's to say all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ampd.core.ledger import WindowRecord
from ampd.core.messages import SaveFailed
from ampd.engine.ranks import Ranks
from ampd.engine.rows_writer import RowsWriter
from ampd.engine.writer import QuarantineTask, SaveTask, Writer

_STANDINGS = msgspec.msgpack.Decoder(tuple[bool, SaveFailed | None])


class SharedFiles:
    """One rank's view of rank 0's writer; all ranks look at the same boundaries.

    Rank 0 has its `own`; another has a `part` where each rank writes its rows of a state.
    """

    def __init__(self, ranks: Ranks, own: Writer | None, part: RowsWriter | None = None) -> None:
        self._ranks = ranks
        self._own = own
        self._part = part
        self._is_open = False  # a save was begun, and its end is not known yet
        self._trouble: SaveFailed | None = None

    @property
    def row_bytes(self) -> int:
        """Of rank 0, which saves it."""
        return self._own.row_bytes if self._own is not None else 0

    @property
    def is_saving(self) -> bool:
        """Asks rank 0 while a save is open."""
        if self._is_open:
            self._learn()
        return self._is_open

    @property
    def trouble(self) -> SaveFailed | None:
        """Asks rank 0 while a save is open."""
        if self._is_open:
            self._learn()
        return self._trouble

    def start(self, row_bytes: int) -> None:
        """Rank 0 begins, and with it who writes a part."""
        if self._own is not None:
            self._own.start(row_bytes)
        if self._part is not None:
            self._part.start()

    def rows(self, records: Sequence[WindowRecord]) -> None:
        """Rank 0 appends them; the others have the same."""
        if self._own is not None:
            self._own.rows(records)

    def save(self, task: SaveTask) -> None:
        """Rank 0 writes the state, which is that of all, or every rank its part."""
        self._is_open = True
        if self._own is not None:
            self._own.save(task)
        if self._part is not None:
            self._part.save(task)

    def quarantine(self, task: QuarantineTask) -> None:
        """Rank 0 keeps the window, of which it has the whole."""
        if self._own is not None:
            self._own.quarantine(task)

    def wait(self) -> None:
        """All ranks wait for rank 0."""
        if self._own is not None:
            self._own.wait()
        if self._is_open:
            self._learn()

    def close(self) -> None:
        """Rank 0 finishes, and who writes a part."""
        if self._own is not None:
            self._own.close()
        if self._part is not None:
            self._part.close()

    def _learn(self) -> None:
        own = self._own
        told = (own.is_saving, own.trouble) if own is not None else (False, None)
        self._is_open, self._trouble = _STANDINGS.decode(self._ranks.spread(msgspec.msgpack.encode(told)))
