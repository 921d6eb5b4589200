"""How far a worker has come, and which of its reports can be true there.

    ABSENT --Spawn--> LOADING --Hello--> BRIEFED --Ready--> READY
      ^                  |                  |                 |
      +---last words--- GONE <----Exited----+-----------------+

A report may be late, or of a worker that was replaced: what cannot be true of the present one moves nothing.
"""

from __future__ import annotations

import enum

from ampd.core import messages as m
from ampd.core.view import JobView


class Worker(enum.Enum):
    """How far the present worker has come."""

    ABSENT = enum.auto()
    LOADING = enum.auto()  # its process was asked for, and has not spoken
    BRIEFED = enum.auto()  # it has its Start order
    READY = enum.auto()  # it takes orders
    GONE = enum.auto()  # its process is gone, its last reports may not be


def is_news(view: JobView, worker: Worker, report: m.Report, *, was_ready: bool) -> bool:
    """Whether this can be true: a worker of the past, or one that repeats itself, moves nothing."""
    if view.state.is_final or worker is Worker.ABSENT:
        return False
    match report:
        case m.Hello():
            is_restarted = view.config.distributed.has_agent and worker is not Worker.GONE
            return worker is Worker.LOADING or is_restarted
        case m.Ready():
            return worker is Worker.BRIEFED
        case m.Snapshot() | m.Applied():
            return was_ready
        case _:
            return worker is not Worker.LOADING
