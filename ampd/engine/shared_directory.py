"""Whether all nodes of a job see the same job directory, found out before anything depends on it.

Rank 0 writes checkpoints and all ranks read them when they resume. A directory of the same name that is another one on
some node would be noticed by the first resume, which comes at night; so rank 0 leaves a mark at every start, and every
rank looks for it.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from pathlib import Path

from ampd.engine.ranks import Ranks
from ampd.errors import ConfigError

_APPEARS_SECONDS = 10.0
"""A network file system may take a moment to show what another machine has made."""
_LOOK_SECONDS = 0.05


def require_shared(directory: Path, ranks: Ranks) -> None:
    """Raise ConfigError, on every rank alike, where some node does not see what rank 0 writes; waits for all ranks."""
    mark = directory / f".seen-by-all-{secrets.token_hex(8)}"
    if ranks.rank == 0:
        with contextlib.suppress(OSError):  # then nobody sees it, rank 0 itself not either
            mark.touch()
    mark = directory / ranks.spread(mark.name.encode()).decode()
    said = ranks.gather(b"" if _appears(mark) else socket.gethostname().encode())
    if ranks.rank == 0:
        mark.unlink(missing_ok=True)
    blind = sorted({name.decode() for name in said} - {""})
    if blind:
        raise ConfigError(
            f"job.directory = {str(directory)!r} is not the same directory on all nodes: "
            f"what rank 0 writes there is not seen on {', '.join(blind)}",
            field="job.directory",
            hint="put it on a file system that all nodes share, under the same path: a resume reads checkpoints there",
        )


def _appears(mark: Path) -> bool:
    deadline = time.monotonic() + _APPEARS_SECONDS
    while not mark.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
