"""How many lines the daemon's log has had: a fact of the process, as where they go is.

Apart from `logs`, because whoever shows these counts must not load what writes lines: structlog brings rich with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Rank by name."""


@dataclass(frozen=True, slots=True)
class Lines:
    """How many lines there were so far: written, by level, and left out, by reason."""

    written: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0))
    left_out: dict[str, int] = field(default_factory=lambda: {"budget": 0, "stream": 0})


_LINES = Lines()


def lines() -> Lines:
    """What was written and left out since this process began."""
    return _LINES
