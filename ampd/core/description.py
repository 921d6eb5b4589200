"""The protocol in words: what each field, result and code means, for whoever writes a client.

It is served: `hello` answers with all of it beside what is generated from the types, so a client in any language can
read what this very daemon speaks, and there is no page that could be older than the code. Tests hold it against the
types and against real answers.
"""

from __future__ import annotations

from ampd.core import protocol as p
from ampd.core.guard import Figure
from ampd.core.protocol import Code

FIELDS: dict[str, str] = {
    "boot": "The boot that the numbers are of, as every reply names it; empty for the present one.",
    "changes": "Keys (short where unique) and values, as words.",
    "dry_run": "Check and answer what would change; nothing is made.",
    "fault": "What goes wrong.",
    "guards": "What must hold for the change to be kept, FIGURE OPERATOR LIMIT with < <= == >= or >; an x after the limit "
    "makes it a multiple of before. Where none is given, a default set, which the answer names. Figures: "
    + "; ".join(f"{figure.value}, {figure.doc}" for figure in Figure)
    + ".",
    "if_revision": "Compare-and-set: CONFLICT unless this revision still holds.",
    "keys": "Full or unique short names; none for all.",
    "last": "Only the newest so many.",
    "most": "At most so many in one answer.",
    "name": "The preset.",
    "new": "The later revision; what holds now where it is not given.",
    "old": "The earlier revision; 1 is the job file.",
    "rank": "On this rank alone; on all where it is not given.",
    "reason": "Why; kept in the history.",
    "revision": "The revision to go back to; the one before where it is not given.",
    "save": "Whether a last checkpoint is written.",
    "since": "The number of the last event that is known; all that are kept where it is not given.",
    "trial": "Watch the change for so many windows, then keep it, or revert it as soon as a guard cannot hold.",
    "wait": "Whether the answer to a trial comes at its end; else when the change is applied.",
    "what": "What is cleared.",
    "windows": "How many windows.",
}
"""What a field of a command means; it means the same in all of them."""

_CHANGED = {
    "changes": "One object for each key that moved: key, old, new.",
    "dry_run": "Whether nothing was made.",
    "trial": "Null, or of a trial: windows, guards, outcome (null, running, confirmed, reverted), reason.",
}
_STATE = {"state": "The job's state after it."}
RESULTS: dict[type[p.Command], dict[str, str]] = {
    p.Get: {
        "values": "Value by full key.",
        "keys": "By full key: live, unit, doc, default.",
    },
    p.Set: _CHANGED,
    p.Preset: _CHANGED,
    p.Rollback: _CHANGED,
    p.DropOverlay: _CHANGED,
    p.Confirm: {"kept": "The revision that was on trial."},
    p.Cancel: _CHANGED,
    p.Reset: {"what": "What was cleared."},
    p.Checkpoint: {
        "path": "The directory of the checkpoint.",
        "bytes": "Its size.",
        "seconds": "How long it took.",
    },
    p.Pause: _STATE,
    p.Resume: _STATE,
    p.Stop: _STATE | {"saved": "Whether what was trained is on disk."},
    p.Inject: {
        "fault": "What goes wrong.",
        "windows": "In how many windows.",
        "rank": "On which rank alone; null for all.",
    },
    p.History: {
        "revisions": "Oldest first: revision, window, time, author, reason, changes (key, old, new), trial (null, or "
        "windows, guards, outcome, window, reason), reverts (null, or the revision whose trial it ended)."
    },
    p.Diff: {"old": "From this revision.", "new": "To this one.", "changes": "Key, old and new of each."},
    p.Overlay: {"changes": "Live keys that differ: key, job_file, value, revision, author, reason."},
    p.Events: {"events": "In order: boot, seq, time, name, fields.", "last": "The newest number."},
    p.Hello: {
        "protocol": "The version of the protocol.",
        "version": "The version of ampd.",
        "boot": "Differs for every start of the daemon.",
        "name": "The job.",
        "pid": "The daemon's process.",
        "operations": "By name: role, doc, fields (JSON Schema), result (in words).",
        "codes": "Codes of refusals: meaning, retryable.",
        "live_keys": "JSON Schema of the keys that `set` takes, with their values.",
    },
}
"""What the result of an operation holds. `status` and `stats` hold figures under the names of the ledger, and more."""

OPEN = (p.Status, p.Stats)
"""Their fields grow with what is measured; a client takes those that it knows."""

MEANING: dict[Code, str] = {
    Code.BAD_FRAME: "The message is not one frame.",
    Code.BAD_JSON: "It is not JSON, not an object, or has a key twice.",
    Code.TOO_LARGE: "It is over the limit.",
    Code.BAD_VERSION: "It is of another version of the protocol.",
    Code.UNKNOWN_OP: "There is no such operation.",
    Code.UNKNOWN_KEY: "There is no such key, or several that could be meant.",
    Code.BAD_VALUE: "A field has a value that it cannot have.",
    Code.IMMUTABLE: "The key needs a restart of the job.",
    Code.FORBIDDEN: "The peer's role, or the job file, does not allow it.",
    Code.CONFLICT: "The revision has moved on, the id was another command's, or a trial is (or is not) running.",
    Code.BUSY: "Too many commands are waiting.",
    Code.NOT_READY: "No worker can do it now.",
    Code.SHUTTING_DOWN: "The job is ending, or over.",
    Code.APPLY_FAILED: "It could not be carried out, or not be recorded; the message says which.",
    Code.COMPACTED: "Events that were asked for are no longer kept.",
    Code.NOT_LEADER: "This node follows another one, which takes it; the message says which.",
    Code.INTERNAL: "The daemon failed at it; its log has more.",
}
