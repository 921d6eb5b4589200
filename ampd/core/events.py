"""The public names of what happens: one mapping from reports to `subject.past_verb` and fields.

Logs, `ampctl events` and the page all use these names; a name is constant and facts are fields.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ampd.core import messages as m

NAMES: dict[type[m.Message], str] = {
    m.Hello: "worker.spoke",
    m.Joined: "node.joined",
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
    m.Diverged: "ranks.diverged",
    m.Evaluated: "job.evaluated",
    m.Warned: "worker.warned",
    m.Lost: "worker.lost_events",
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
    m.Diverged,
    m.Warned,
    m.Lost,
)


ACTION_NAMES: dict[type[m.Message], str] = {
    m.Configure: "config.applied",
    m.Inject: "fault.injected",
    m.Reset: "statistics.reset",
    m.Avoid: "window.avoided",
    m.Divide: "window.divided",
    m.Confirm: "trial.confirmed",
}
"""What an action that took effect is called, save a change that is put on trial, or ends one."""


def describe(report: m.Report) -> tuple[str, dict[str, Any]]:
    """The event's name and its fields as plain data; what is empty is left out."""
    match report:
        case m.Applied():
            return _name_of(report.applied.action), _present(_of_action(report))
        case m.Ready():
            fields = _plain(report) | {
                "precision": report.choice.precision.value,
                "reason": report.choice.reason,
            }
            hidden = ("config", "choice", "capability")
            native = [precision.value for precision in report.capability.native]
            kept = {name: value for name, value in fields.items() if name not in hidden}
            return NAMES[m.Ready], _present(kept | {"device": report.capability.device, "native": native})
    return NAMES[type(report)], _present(_plain(report))


def _name_of(action: m.Action) -> str:
    match action:
        case m.Configure(trial=terms) if terms is not None:
            return "trial.began"
        case m.Configure(reverts=revision) if revision is not None:
            return "trial.reverted"
    return ACTION_NAMES[type(action)]


def _of_action(report: m.Applied) -> dict[str, Any]:
    """Who changed what and when: a line that a person can read."""
    applied = report.applied
    fields = {name: value for name, value in _plain(applied).items() if name not in ("action", "request_id")}
    if isinstance(applied.action, m.Configure):
        changes = {"changes": [str(difference) for difference in report.differences]}
        return fields | changes | _of_trial(applied.action)
    return fields | _plain(applied.action)


def _of_trial(action: m.Configure) -> dict[str, Any]:
    if action.trial is not None:
        return {"windows": action.trial.windows, "guards": [str(guard) for guard in action.trial.guards]}
    return {"of": action.reverts} if action.reverts is not None else {}


def _plain(message: m.Message) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(message)
    del fields["type"]
    return fields


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value != ""}


def level_of(report: m.Report) -> str:
    """How severe an event is: "info" or "warning" ("error" for a failed run)."""
    if isinstance(report, m.Finished) and report.result == "failed":
        return "error"
    if isinstance(report, m.Applied) and _name_of(report.applied.action) == "trial.reverted":
        return "warning"
    return "warning" if isinstance(report, _WARNINGS) else "info"
