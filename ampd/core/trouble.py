"""Why something could not be written, in the words of metrics and events, told from the error number of the kernel.

Errors of one reason call for one answer: room can be made, a mount can be mended, a device is replaced; a state that
cannot be saved at all (`STATE`) is no trouble of the disk, and waiting does not help it.
"""

from __future__ import annotations

import enum
import errno


class Trouble(enum.StrEnum):
    """The label `reason` of ampd_checkpoint_failures_total."""

    FULL = "full"  # no space, no quota, or a limit on the size of files
    READ_ONLY = "read_only"  # the file system, or the directory for this user
    IO = "io"  # the device, or the network to it
    STALLED = "stalled"  # it neither takes nor refuses: a network mount whose server is gone
    STATE = "state"  # not finite, or of a kind that a checkpoint cannot hold
    OTHER = "other"

    @property
    def is_of_disk(self) -> bool:
        """Whether the same state might be written at another time."""
        return self is not Trouble.STATE


_OF_NUMBER = {
    errno.ENOSPC: Trouble.FULL, errno.EDQUOT: Trouble.FULL, errno.EFBIG: Trouble.FULL,
    errno.EROFS: Trouble.READ_ONLY, errno.EACCES: Trouble.READ_ONLY, errno.EPERM: Trouble.READ_ONLY,
    errno.EIO: Trouble.IO, errno.ENXIO: Trouble.IO, errno.ESTALE: Trouble.IO, errno.ETIMEDOUT: Trouble.IO,
}  # fmt: skip


def trouble_of(number: int | None) -> Trouble:
    """What an `errno` means to an operator."""
    return _OF_NUMBER.get(number or 0, Trouble.OTHER)
