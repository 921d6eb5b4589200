"""What followers and the log are told: reports of the worker, moves of the job, and what the daemon itself does.

Events are numbered here and nowhere else, so that the numbers have no holes within a boot.
"""

from __future__ import annotations

from typing import Any

from ampd.core import messages as m
from ampd.core.events import describe, level_of
from ampd.core.lifecycle import JobState, move
from ampd.core.protocol import Event
from ampd.core.ring import Ring
from ampd.core.stimuli import AnyInstruction, Publish
from ampd.core.view import JobView

_LEVELS = {JobState.FAILED: "error", JobState.RECOVERING: "warning"}


class Bulletin:
    """The events of one boot."""

    def __init__(self, view: JobView) -> None:
        self.ring = Ring()
        self._view = view

    def announce(self, report: m.Report, now: float) -> Publish:
        """What a worker reported."""
        name, fields = describe(report)
        return self._publish(name, fields, level_of(report), now)

    def tell(self, name: str, now: float, *, level: str = "info", **fields: Any) -> Publish:
        """What the daemon did or found; `name` is `subject.past_verb`."""
        return self._publish(name, fields, level, now)

    def move(self, to: JobState, reason: str, now: float) -> list[AnyInstruction]:
        """Move the job to another state, and say so; an AssertionError where the table has no such move."""
        view = self._view
        start, view.state = view.state, move(view.state, to)
        view.state_since, view.state_reason = now, reason
        fields = {"from": start, "to": to, "reason": reason}
        return [self._publish("lifecycle.changed", fields, _LEVELS.get(to, "info"), now)]

    def _publish(self, name: str, fields: dict[str, Any], level: str, now: float) -> Publish:
        view = self._view
        view.events += 1
        view.told[name] = view.told.get(name, 0) + 1
        view.told_at[name] = now
        view.levels[level] = view.levels.get(level, 0) + 1
        event = Event(boot=view.boot, seq=view.events, time=now, name=name, fields=fields)
        view.recent.add(event, level)
        self.ring.add(event)
        return Publish(event, level)
