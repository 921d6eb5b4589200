"""The last events of a job, few enough to show: for the status page and `ampctl status --watch`.

A storm must not push out what explains it. Events that come with windows (fallbacks, moves of the scale, checkpoints)
are folded into one line each with a count, so that the change of precision before a thousand fallbacks is still to be
seen.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ampd.core.protocol import Event

MOST = 16
FOLDED = frozenset(
    {
        "window.fell_back",
        "fallbacks.reached_limit",
        "window.skipped",
        "window.quarantined",
        "scale.moved",
        "checkpoint.saved",
        "job.evaluated",
    }
)
"""The events that come with windows: with every one, at an interval, or in every epoch of a bad run."""
_LONG = frozenset({"config", "capability", "choice", "request_id"})
"""Fields that are for programs: a whole job file is not shown in a line."""


def facts(event: Event) -> dict[str, Any]:
    """The fields of an event that say something to a person."""
    empty: tuple[object, ...] = ("", None, [], {}, ())
    return {name: value for name, value in event.fields.items() if name not in _LONG and value not in empty}


class Told(msgspec.Struct, frozen=True):
    """An event and how severe it is; `times` is how often one of its name came since this line was begun."""

    event: Event
    level: str
    times: int = 1


class Recent(msgspec.Struct):
    """The last lines, oldest first."""

    lines: list[Told] = []

    def add(self, event: Event, level: str) -> None:
        """Take in an event; a folded one moves its line to the end."""
        same = [told for told in self.lines if told.event.name == event.name] if event.name in FOLDED else []
        for told in same:
            self.lines.remove(told)
        self.lines.append(Told(event, level, 1 + sum(told.times for told in same)))
        del self.lines[:-MOST]
