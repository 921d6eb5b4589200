"""The results of commands as plain data, read off a `JobView`: what `ampctl --json` prints.

Pure look-ups: a read never asks the worker, so it is answered at once whatever the worker does. A figure that is
not known is None, never a zero that looks measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ampd.core import keys, objections
from ampd.core.change import Difference
from ampd.core.ledger import Counts, Span
from ampd.core.messages import Action, AppliedAction, Avoid, Configure, Confirm, Divide, Inject, Reset, Saved
from ampd.core.objections import Objection
from ampd.core.protocol import Done, Refusal
from ampd.core.rate import Rate
from ampd.core.recent import Told, facts
from ampd.core.trial import Terms
from ampd.core.view import JobView

Result = dict[str, Any]
"""Plain data that JSON can hold."""


def done(view: JobView, request_id: str, result: Result) -> Done:
    """A result as of now."""
    return Done(id=request_id, boot=view.boot, revision=view.revision, window=window_of(view), result=result)


def refusal(view: JobView, request_id: str, objection: Objection) -> Refusal:
    """An objection, addressed to a request."""
    return Refusal(
        id=request_id,
        boot=view.boot,
        code=objection.code,
        message=objection.message,
        retryable=objection.code.is_retryable,
        field=objection.field,
        hint=objection.hint,
    )


def window_of(view: JobView) -> int:
    """The window that the job is at, as far as is known."""
    if view.snapshot is not None:
        return view.snapshot.window
    return view.ready.window if view.ready is not None else 0


def status(view: JobView, rate: Rate, now: float) -> Result:
    """Where the job is and what precision is doing."""
    return _identity(view) | _progress(view, rate) | _precision(view) | _health(view, now)


def _identity(view: JobView) -> Result:
    names = (
        "name",
        "state",
        "state_reason",
        "directory",
        "boot",
        "pid",
        "http",
        "endpoint",
        "started",
        "revision",
    )
    return {name: getattr(view, name) for name in names} | {
        "node": view.place.node,
        "leader": msgspec.to_builtins(view.leader),
        "uptime_seconds": sum(view.state_seconds.values()),
        "message": view.result.message if view.result is not None else "",
    }


def _progress(view: JobView, rate: Rate) -> Result:
    snapshot, ready = view.snapshot, view.ready
    source = snapshot or ready
    return {
        "window": window_of(view),
        "total_windows": source.total_windows if source else None,
        "epoch": snapshot.epoch if snapshot else None,
        "loss": snapshot.loss if snapshot else None,
        "best_loss": view.best_loss,
        "grad_norm": snapshot.grad_norm if snapshot else None,
        "lr": snapshot.lr if snapshot else None,
        "windows_per_second": rate.windows_per_second,
        "samples_per_second": rate.samples_per_second,
        "device": ready.capability.device if ready else None,
        "parameters": ready.parameters if ready else None,
        "resumed": ready.resumed if ready else None,
    }


def _precision(view: JobView) -> Result:
    snapshot, choice = view.snapshot, view.choice
    counts = snapshot.job if snapshot else Counts()
    return {
        "precision": choice.precision if choice else None,
        "precision_reason": choice.reason if choice else "",
        "scale": snapshot.scale if snapshot else None,
        "windows": counts.windows,
        "applied": counts.applied,
        "skipped": counts.skipped,
        "fp32_fallbacks": counts.fp32_fallbacks,
        "trial": msgspec.to_builtins(snapshot.trial) if snapshot else None,
    }


def _health(view: JobView, now: float) -> Result:
    saved = view.last_saved
    age = max(0.0, now - view.last_saved_at)
    return {
        "restarts": view.restarts,
        "standing": msgspec.to_builtins(view.standing),
        "memory": view.snapshot.memory if view.snapshot else {},
        "checkpoint": {"window": saved.window, "path": saved.path, "age_seconds": age} if saved else None,
        "recent_events": [_told(told) for told in view.recent.lines],
    }


def _told(told: Told) -> Result:
    event = told.event
    return {
        "time": event.time,
        "name": event.name,
        "level": told.level,
        "times": told.times,
        "fields": facts(event),
    }


def values(view: JobView, names: Sequence[str]) -> Result:
    """Keys with what they hold and what they are; all keys where none is named. Raises ConfigError."""
    asked = [keys.resolve(name) for name in names] or list(keys.table().values())
    return {
        "values": {key.path: keys.value_of(view.config, key.path) for key in asked},
        "keys": {
            key.path: {"live": key.live, "unit": key.unit, "doc": key.doc, "default": key.default}
            for key in asked
        },
    }


def stats(view: JobView) -> Result | Objection:
    """The AMP ledger: of the job, and since the last reset."""
    snapshot = view.snapshot
    if snapshot is None:
        return objections.no_window_yet()
    return {
        "job": _counts(snapshot.job),
        "span": _counts(snapshot.span),
        "scale": _range(snapshot.span_scale),
        "loss": {"mean": snapshot.span_loss.mean, "left_out": snapshot.span_loss.left_out},
        "memory_saved": msgspec.to_builtins(snapshot.saved),
        "kept_for_backward": msgspec.to_builtins(snapshot.kept),
        "window_seconds": view.distributions.sampled.of_one,
    }


def _counts(counts: Counts) -> Result:
    return msgspec.structs.asdict(counts) | {"fallback_ratio": counts.fallback_ratio}


def _range(span: Span) -> dict[str, float | None]:
    return {"min": span.least, "mean": span.mean, "max": span.greatest}


def changed(differences: Sequence[Difference], *, dry_run: bool, trial: Result | None = None) -> Result:
    """The result of a change, made or not."""
    return {"changes": rows(differences), "dry_run": dry_run, "trial": trial}


def on_trial(terms: Terms | None, outcome: str | None, reason: str = "") -> Result | None:
    """What a change is watched for, and what came of it; None for one that is not on trial."""
    if terms is None:
        return None
    guards = [str(guard) for guard in terms.guards]
    return {"windows": terms.windows, "guards": guards, "outcome": outcome, "reason": reason}


def rows(differences: Sequence[Difference]) -> list[Result]:
    """Differences as plain data."""
    return [{"key": d.key, "old": d.old, "new": d.new} for d in differences]


def carried_out(applied: AppliedAction, differences: Sequence[Difference], boot: str) -> Done:
    """The answer to who asked for an action that took effect, from the daemon `boot`: the same however often it is made."""
    return Done(
        id=applied.request_id, boot=boot, revision=applied.revision, window=applied.window,
        result=taken(applied.action, differences),
    )  # fmt: skip


def taken(action: Action, differences: Sequence[Difference]) -> Result:
    """The result of an action that took effect."""
    match action:
        case Configure():
            return changed(differences, dry_run=False, trial=on_trial(action.trial, "running"))
        case Confirm():
            return {"kept": action.revision}
        case Inject():
            return {"fault": action.fault, "windows": action.windows, "rank": action.rank}
        case Reset():
            return {"what": action.what}
        case Avoid():
            return {"cause": action.cause}
        case Divide():
            return {"parts": action.parts}


def saved(report: Saved) -> Result:
    """The result of a checkpoint on request."""
    return {"path": report.path, "bytes": report.bytes, "seconds": report.seconds}
