"""The public names of what happens: one mapping from reports to `subject.past_verb` and fields.

Logs, `ampctl events` and the page all use these names; a name is constant and facts are fields.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ampd.core import messages as m

NAMES: dict[type[m.Message], str] = {
    m.Hello: "worker.spoke",
    m.Ready: "worker.became_ready",
    m.Applied: "config.applied",
    m.Refused: "command.rejected",
    m.Saved: "checkpoint.saved",
    m.SaveFailed: "checkpoint.failed",
    m.SetAside: "checkpoint.set_aside",
    m.Holding: "job.paused",
    m.Going: "job.resumed",
    m.FellBack: "window.fell_back",
    m.Skipped: "window.skipped",
    m.Quarantined: "window.quarantined",
    m.RolledBack: "job.rolled_back",
    m.ScaleStuck: "scale.stuck",
    m.ScaleMoved: "scale.moved",
    m.LimitReached: "fallbacks.reached_limit",
    m.Widened: "module.widened",
    m.Split: "window.split",
    m.Evaluated: "job.evaluated",
    m.Warned: "worker.warned",
    m.Finished: "worker.finished",
}
"""Every report but `Snapshot`, which is no event."""

_WARNINGS = (
    m.Refused,
    m.SaveFailed,
    m.SetAside,
    m.FellBack,
    m.Skipped,
    m.LimitReached,
    m.Quarantined,
    m.ScaleStuck,
    m.Widened,
    m.Split,
    m.Warned,
)


def describe(report: m.Report) -> tuple[str, dict[str, Any]]:
    """The event's name and its fields as plain data."""
    fields = msgspec.to_builtins(report)
    del fields["type"]
    return NAMES[type(report)], fields


def level_of(report: m.Report) -> str:
    """How severe an event is: "info" or "warning" ("error" for a failed run)."""
    if isinstance(report, m.Finished) and report.result == "failed":
        return "error"
    return "warning" if isinstance(report, _WARNINGS) else "info"
