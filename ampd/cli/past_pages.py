"""What `ampctl` prints of the past, for people: revisions, differences, events.

Times are local, to the second, as an operator's watch and the log of the machine have them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ampd.cli.ctl_pages import in_columns
from ampd.core.change import show
from ampd.core.protocol import Done

_LONGEST_VALUE = 200
"""An event's field may hold the last lines of a crashed worker; `--json` has them whole."""


def history(done: Done) -> str:
    """The page of `ampctl history`: a line for each revision, and below it what it moved."""
    lines = []
    for revision in done.result["revisions"]:
        lines += [_title(revision), *_trial(revision)]
        lines += [f"  {_moved(change)}" for change in revision["changes"]] or ["  moved nothing"]
    return "\n".join(lines) if lines else "nothing was changed: revision 1, the job file, holds"


def diff(done: Done) -> str:
    """The page of `ampctl diff`: one line for each key."""
    r = done.result
    title = f"{_name(r['old'])} -> {_name(r['new'])}"
    return "\n".join([f"{title}: {len(r['changes'])} differ", *(f"  {_moved(c)}" for c in r["changes"])])


def overlay(done: Done) -> str:
    """The page of `ampctl overlay show`: what the job file says, what holds, and since when."""
    changes = done.result["changes"]
    if not changes:
        return "no live change: every key is as the job file has it"
    rows = [("KEY", "JOB FILE", "NOW", "SINCE")]
    rows += [(c["key"], show(c["job_file"]), show(c["value"]), _since(c)) for c in changes]
    return "\n".join(in_columns(rows))


def event(told: Mapping[str, Any]) -> str:
    """One line for an event: number, time, name, fields."""
    fields = "  ".join(f"{key}={_brief(value)}" for key, value in told["fields"].items())
    return f"{told['seq']:>6}  {_clock(told['time'])}  {told['name']:<22}  {fields}".rstrip()


def events(done: Done) -> str:
    """The page of `ampctl events`."""
    return "\n".join(event(told) for told in done.result["events"]) or "no event yet"


def _title(revision: Mapping[str, Any]) -> str:
    reason = f': "{revision["reason"]}"' if revision["reason"] else ""
    when = f"window {revision['window']}, {_clock(revision['time'])}"
    return f"revision {revision['revision']}  {when}, by {revision['author'] or 'nobody'}{reason}"


def _trial(revision: Mapping[str, Any]) -> list[str]:
    """What a revision has to do with a trial."""
    trial, reverts = revision.get("trial"), revision.get("reverts")
    if reverts:
        return [f"  ended the trial of revision {reverts}"]
    if not trial:
        return []
    asked = f"  on trial for {trial['windows']} windows ({', '.join(trial['guards'])})"
    return [
        f"{asked}: {trial['outcome']}"
        + (f" at window {trial['window']}, {trial['reason']}" if trial["window"] is not None else "")
    ]


def _name(number: int) -> str:
    return "the job file" if number == 1 else f"revision {number}"


def _moved(change: Mapping[str, Any]) -> str:
    return f"{change['key']} {show(change['old'])} -> {show(change['new'])}"


def _since(change: Mapping[str, Any]) -> str:
    reason = f': "{change["reason"]}"' if change["reason"] else ""
    return f"revision {change['revision'] or '-'}, by {change['author'] or 'nobody'}{reason}"


def _brief(value: Any) -> str:
    text = show(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
