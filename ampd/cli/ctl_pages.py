"""What `ampctl` prints for people: an answer in, text out.

Plain aligned columns, so that a pipe, a log and a narrow terminal all get the same words; the only colour is the
state's, which click drops where stdout is no terminal, and we drop where NO_COLOR is set. A figure that the daemon
does not have yet is shown as "-", never as 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from ampd.core.change import show
from ampd.core.group import Leader, standing
from ampd.core.protocol import Done
from ampd.core.shown import in_bytes, in_time, note

_COLOURS = {
    "running": "green", "completed": "green", "paused": "yellow", "recovering": "yellow", "stopping": "yellow",
    "failed": "red",
}  # fmt: skip


def status(done: Done) -> str:
    """The page of `ampctl status`."""
    r = done.result
    title = f"{r.get('name', '?')}  {_state(str(r.get('state', '?')))}" + note(r.get("state_reason"))
    rows = [
        *among_nodes(r),
        ("window", _progress(r)),
        ("phase", _standing(r.get("standing"))),
        ("precision", str(r.get("precision") or "-") + note(r.get("precision_reason"))),
        *_on_trial(r.get("trial")),
        ("loss", _number(r.get("loss")) + note(_with("best", r.get("best_loss")))),
        ("loss scale", _number(r.get("scale"))),
        ("gradients", f"norm {_number(r.get('grad_norm'))}, lr {_number(r.get('lr'))}"),
        ("fallbacks", _by_cause(r.get("fp32_fallbacks"))),
        ("skipped", _by_cause(r.get("skipped"))),
        (
            "speed",
            f"{_number(r.get('windows_per_second'))} windows/s, {_number(r.get('samples_per_second'))} samples/s",
        ),
        ("memory", ", ".join(f"{kind} {in_bytes(n)}" for kind, n in (r.get("memory") or {}).items()) or "-"),
        ("checkpoint", _last_checkpoint(r.get("checkpoint"))),
        ("restarts", _by_cause(r.get("restarts"))),
        ("metrics", f"http://{r['http']}/metrics" if r.get("http") else "-"),
        ("revision", show(r.get("revision", done.revision))),
        (
            "daemon",
            f"pid {r.get('pid', '-')}, up {_uptime(r.get('uptime_seconds'))}, {r.get('directory', '-')}",
        ),
    ]
    if r.get("message"):
        rows.append(("message", str(r["message"])))
    return "\n".join([title, *_columns(rows)])


def values(done: Done) -> str:
    """The page of `ampctl get`: one key a line, and whether it can be changed now."""
    about: Mapping[str, Any] = done.result.get("keys", {})
    return "\n".join(
        in_columns(
            [_value_row(key, value, about.get(key, {})) for key, value in done.result["values"].items()]
        )
    )


def changes(done: Done) -> str:
    """The page of `ampctl set` and `ampctl preset`: one line for each key that moved."""
    moved = [f"{c['key']} {show(c['old'])} -> {show(c['new'])}" for c in done.result["changes"]]
    if not moved:
        return f"nothing to change: revision {done.revision} holds these values"
    trial = done.result.get("trial")
    if done.result.get("dry_run"):
        return "\n".join(
            [*(f"would change {line} (now revision {done.revision})" for line in moved), *_trial(trial)]
        )
    if trial and trial["outcome"] == "reverted":
        return "\n".join(
            f"reverted at window {done.window}, as revision {done.revision}: {line}" for line in moved
        )
    if trial and trial["outcome"] == "confirmed":
        return "\n".join(f"confirmed at window {done.window}: {line}" for line in moved)
    lines = [f"revision {done.revision} applied at window {done.window}: {line}" for line in moved]
    return "\n".join([*lines, *_trial(trial)])


def confirmed(done: Done) -> str:
    """The line of `ampctl confirm`."""
    return f"confirmed at window {done.window}: revision {done.result['kept']} stays"


def _trial(trial: Mapping[str, Any] | None) -> list[str]:
    """What a change is or would be watched for."""
    if not trial:
        return []
    begun = "on trial" if trial["outcome"] else "would be on trial"
    return [f"{begun} for {trial['windows']} windows: {', '.join(trial['guards'])}"]


def stats(done: Done) -> str:
    """The page of `ampctl stats`: the ledger of the job beside that of the span."""
    job, span = done.result["job"], done.result["span"]
    rows: list[tuple[str, ...]] = [("", "job", "since reset")]
    rows += [(name.replace("_", " "), _ledger(job[name]), _ledger(span.get(name))) for name in job]
    scale, loss = done.result.get("scale") or {}, done.result.get("loss") or {}
    scales = " / ".join(_number(scale.get(part)) for part in ("min", "mean", "max"))
    left_out = loss.get("left_out")
    rows += [
        ("scale min/mean/max", "", scales),
        (
            "mean loss",
            "",
            _number(loss.get("mean")) + note(f"{left_out} not finite, left out" if left_out else ""),
        ),
    ]
    if saved := done.result.get("memory_saved"):
        rows.append(("memory saved", "", f"{in_bytes(saved['bytes'])} a micro-batch ({saved['basis']})"))
    if spent := done.result.get("window_seconds"):
        rows.append(("time of a window", "", _spent(spent)))
    return "\n".join(in_columns(rows))


def reset(done: Done) -> str:
    """The line of `ampctl reset`."""
    return f"reset {done.result['what']} at window {done.window}"


def checkpoint(done: Done) -> str:
    """The line of `ampctl checkpoint`."""
    r = done.result
    return f"saved window {done.window} to {r['path']} ({in_bytes(r['bytes'])} in {_number(r['seconds'])} s)"


def moved(done: Done) -> str:
    """The line of `ampctl pause` and `ampctl resume`."""
    return f"{done.result['state']} at window {done.window}"


def stopped(done: Done) -> str:
    """The line of `ampctl stop`."""
    saved = "saved" if done.result["saved"] else "not saved"
    return f"{done.result['state']} at window {done.window}, {saved}"


def injected(done: Done) -> str:
    """The line of `ampctl inject`."""
    number, rank = done.result["windows"], done.result.get("rank")
    where = "" if rank is None else f" on rank {rank}"
    windows = f"the next {number} window{'s' * (number != 1)}"
    return f"{done.result['fault']}{where} in {windows}, from window {done.window}"


def _value_row(key: str, value: Any, about: Mapping[str, Any]) -> tuple[str, ...]:
    return key, "=", show(value), str(about.get("unit", "")), "live" if about.get("live") else "fixed"


def _state(state: str) -> str:
    colour = None if os.environ.get("NO_COLOR") else _COLOURS.get(state)
    return click.style(state, fg=colour, bold=True) if colour else state


def _progress(r: Mapping[str, Any]) -> str:
    window, total, speed = r.get("window"), r.get("total_windows"), r.get("windows_per_second")
    if window is None or not total:
        return _number(window)
    left = f", {in_time((total - window) / speed)} left" if speed and r.get("state") == "running" else ""
    return f"{window} of {total} ({100 * window / total:.1f} %), epoch {r.get('epoch', '-')}{left}"


def among_nodes(r: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The row that says which node of its job this is; none in a job of one node."""
    leader = Leader(**r["leader"]) if r.get("leader") else None
    words = standing(str(r.get("node") or ""), leader)
    return [("node", words)] if words else []


def _standing(standing: Mapping[str, Any] | None) -> str:
    """What the worker does, and how long it has not got on; a budget is what that may take."""
    if standing is None:
        return "-"
    budget = standing.get("budget_seconds")
    return f"{standing['phase']}, {in_time(standing['seconds'])} without progress" + note(
        f"budget {in_time(budget)}" if budget is not None else "not judged"
    )


def _on_trial(trial: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [("trial", trial_now(trial))] if trial else []


def trial_now(trial: Mapping[str, Any]) -> str:
    """How a running trial stands, in one line; the figures are as of now."""
    figures = ", ".join(f"{guard} (now {_number(value)})" for guard, value in trial["guards"].items())
    return (
        f"{', '.join(trial['keys'])}, revision {trial['revision']}, until window {trial['until']}: {figures}"
    )


def _last_checkpoint(saved: Mapping[str, Any] | None) -> str:
    return (
        f"window {saved['window']}, {in_time(saved['age_seconds'])} ago, {saved['path']}"
        if saved
        else "none yet"
    )


def _by_cause(counter: Mapping[str, int] | None) -> str:
    if not counter or not sum(counter.values()):
        return "0"
    return f"{sum(counter.values())} ({', '.join(f'{cause} {n}' for cause, n in counter.items() if n)})"


def _ledger(value: Any) -> str:
    if isinstance(value, Mapping):
        nested = any(isinstance(n, Mapping) for n in value.values())
        flat = (
            {f"{a}>{b}": n for a, inner in value.items() for b, n in inner.items()} if nested else dict(value)
        )
        return _by_cause(flat)
    return _number(value)


def _number(value: float | None) -> str:
    match value:
        case None:
            return "-"
        case int():
            return str(value)
        case _ if value == int(value) and abs(value) < 1e15:
            return str(int(value))
    return f"{value:.4g}"


def _spent(seconds: Mapping[str, float]) -> str:
    """A time, and the shares that make it up, the greatest first."""
    whole = sum(seconds.values())
    shares = sorted(((part / whole, name) for name, part in seconds.items() if part), reverse=True)
    return f"{_number(whole)} s" + note(", ".join(f"{name} {100 * share:.0f} %" for share, name in shares))


def _uptime(seconds: float | None) -> str:
    return "-" if seconds is None else in_time(seconds)


def _with(label: str, value: float | None) -> str:
    return "" if value is None else f"{label} {_number(value)}"


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {label:<12}{text}" for label, text in rows]


def in_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of cells as aligned lines."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
