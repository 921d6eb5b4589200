"""What the status page says, section by section: a view in, the inside of a section out, as HTML.

One function for each section, so that a section can be sent alone when only it has changed. Everything that comes from
outside (names, reasons, paths, fields of events) is escaped where it is put in; what is not known yet is said in words
and keeps its place, so that nothing on the page moves when it comes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape

from ampd.core.group import standing
from ampd.core.ledger import Cause, Counts
from ampd.core.lifecycle import JobState
from ampd.core.messages import Saved
from ampd.core.protocol import Event
from ampd.core.recent import Told, facts
from ampd.core.replies import window_of
from ampd.core.shown import in_bytes, in_time
from ampd.core.trial import OnTrial
from ampd.core.view import JobView
from ampd.telemetry.alerts import alerts as judge
from ampd.telemetry.readings import precision_of, saved_window, seconds_of

_SIGNS = {
    JobState.RUNNING: ("good", "▶"), JobState.COMPLETED: ("good", "✔"), JobState.FAILED: ("bad", "✖"),
    JobState.PAUSED: ("warn", "❚❚"), JobState.RECOVERING: ("warn", "↻"), JobState.STOPPING: ("warn", "■"),
    JobState.STOPPED: ("warn", "■"), JobState.STARTING: ("soft", "…"),
}  # fmt: skip
_SEVERITIES = {"warning": ("warn", "▲"), "critical": ("bad", "✖")}
_LEVELS = {"warning": ("warn", "▲"), "error": ("bad", "✖")}
_LONGEST_FACTS = 240
_JUDGED = (
    "Judged here and now, without Prometheus; its rules have the same names and wait until a condition lasts."
)


def state(view: JobView) -> str:
    """Which job, how it is, and why; and which node of it."""
    kind, sign = _SIGNS[view.state]
    message = view.result.message if view.result is not None else view.state_reason
    weight = "bad" if view.state is JobState.FAILED else "soft"
    why = f'<p class="{weight}">{escape(message)}</p>' if message else ""
    word = f'<span class="state {kind}"><span aria-hidden="true">{sign} </span>{view.state}</span>'
    node = standing(view.place.node, view.leader)
    where = f'<p class="soft">node {escape(node)}</p>' if node else ""
    return f"<h1>{escape(view.name)}: {word}</h1>{where}{why}"


def progress(view: JobView, now: float) -> str:
    """How far it is, and what is left."""
    at, total = window_of(view), _total(view)
    bar = f'<progress max="{total or 1}" value="{at}" aria-label="windows done">{at} of {total}</progress>'
    epoch = f", epoch {view.snapshot.epoch}" if view.snapshot is not None else ""
    done = f"window {at} of {total} ({100 * at / total:.1f} %){epoch}" if total else "no window yet"
    since = f"last window {in_time(now - view.last_progress)} ago" if view.last_progress else ""
    facts = [done, _left(view, at, total), since, f"as of {clock(now)} UTC"]
    return bar + '<p class="row">' + "".join(f"<span>{fact}</span>" for fact in facts if fact) + "</p>"


def alerts(view: JobView, now: float) -> str:
    """What needs somebody, judged from the daemon's own state; the runbook is a command away."""
    rows = []
    for alert in judge(view, now):
        kind, sign = _SEVERITIES[alert.severity]
        name = f'<span class="state {kind}"><span aria-hidden="true">{sign} </span>{alert.severity}: {alert.name}</span>'
        rows.append(f"<p>{name} {escape(alert.says)} <code>ampctl explain {alert.name}</code></p>")
    calm = '<p><span class="state good"><span aria-hidden="true">✔ </span>none</span></p>'
    return f'<h2>Alerts</h2>{"".join(rows) or calm}<p class="soft">{_JUDGED}</p>'


def precision(view: JobView) -> str:
    """What windows are first attempted at, and the reason."""
    found = precision_of(view)
    if found is None:
        return _headed("Precision", "not chosen yet", ["", ""])
    reason = escape(view.choice.reason) if view.choice is not None else ""
    if view.choice is not None and not view.choice.is_native:
        reason = f'<span class="warn">▲ {reason}; it costs time</span>'
    lines = [reason, f"revision {view.revision}, TF32 {'allowed' if view.config.amp.enable_tf32 else 'off'}"]
    lines += _trial(view.snapshot.trial if view.snapshot is not None else None)
    return _headed("Precision", str(found), lines)


def speed(view: JobView) -> str:
    """Throughput of late, and what the time went into: that of the loop, and within a window."""
    rates = view.trace.rates()
    if rates is None:
        return _headed("Throughput", "none yet", ["", ""])
    windows, samples, tokens = rates
    more = f"{samples:,.0f} samples/s" + (f", {tokens:,.0f} tokens/s" if tokens else "")
    sampled = view.distributions.sampled
    within = f"in a window: {_activities(sampled.seconds) or 'not looked into yet'}"
    return _headed("Throughput", f"{windows:.3g} windows/s", [more, _activities(seconds_of(view)), within])


def memory(view: JobView) -> str:
    """What the process holds, and what mixed precision saves, against which baseline."""
    snapshot = view.snapshot
    if snapshot is None or not snapshot.memory:
        return _headed("Memory", "not measured", ["", ""])
    first, *others = (f"{in_bytes(size)} {escape(kind)}" for kind, size in snapshot.memory.items())
    if snapshot.saved is None:
        saved = "nothing saved in float32" if not snapshot.precision.is_low else "saving not measured yet"
    else:
        saved = f"a micro-batch keeps {in_bytes(snapshot.saved.bytes)} less than in float32 ({snapshot.saved.basis})"
    return _headed("Memory", first, [saved, *others])


def checkpoint(view: JobView, now: float) -> str:
    """Where a crash now would go back to."""
    failures = sum(view.checkpoint_failures.values())
    failed = f'<span class="bad">✖ {failures} failed</span>' if failures else ""
    at_risk = f"a crash now loses {max(0, window_of(view) - saved_window(view))} windows"
    if view.last_saved is None:
        resumed = saved_window(view)
        figure = f"resumed from {resumed}" if resumed else "none yet"
        return _headed("Checkpoint", figure, [at_risk, failed])
    return _headed("Checkpoint", f"window {view.last_saved.window}", [*_saving(view.last_saved, view, now), at_risk, failed])  # fmt: skip


def windows(view: JobView) -> str:
    """What became of every window, and why some went another way: every cause has its place from the start."""
    counts = view.snapshot.job if view.snapshot is not None else view.counts
    epochs = f"{view.limit_reached} epoch{'s' * (view.limit_reached != 1)}"
    reached = f'; <span class="warn">▲ limit reached</span> in {epochs}' if view.limit_reached else ""
    lost = f"{sum(counts.skipped.values())} skipped, {counts.quarantined} quarantined{reached}"
    most = max([1, *counts.fp32_fallbacks.values()])
    rows = "".join(_cause_row(cause, counts, most) for cause in Cause)
    columns = (
        '<tr><th scope="col">cause</th><th scope="col">skips</th><th scope="col">fallbacks</th><td></td></tr>'
    )
    return (
        _headed("Windows", f"{counts.applied} applied", [lost, _budget(view, counts)])
        + f"<table>{columns}{rows}</table>"
    )


def events(view: JobView) -> str:
    """What happened last, newest first."""
    rows = "".join(_event_row(told) for told in reversed(view.recent.lines))
    return f"<h2>Last events</h2><ol>{rows}</ol>" if rows else "<h2>Last events</h2><p>none yet</p>"


def clock(moment: float) -> str:
    """The time of day, in UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(moment))


def _headed(title: str, figure: str, lines: list[str]) -> str:
    below = "".join(f"<p>{line}</p>" if line else "" for line in lines)
    return f'<h2>{title}</h2><p class="figure">{figure}</p>{below}'


def _trial(trial: OnTrial | None) -> list[str]:
    """What is on trial, and how its guards stand."""
    if trial is None:
        return []
    figures = ", ".join(
        f"{guard} (now {'-' if now is None else f'{now:.4g}'})" for guard, now in trial.guards.items()
    )
    told = f"{', '.join(trial.keys)} on trial until window {trial.until}: {figures}"
    return [f'<span class="warn">▲ {escape(told)}</span>']


def _total(view: JobView) -> int:
    source = view.snapshot or view.ready
    return source.total_windows if source is not None else 0


def _left(view: JobView, at: int, total: int) -> str:
    rates = view.trace.rates()
    if view.state is not JobState.RUNNING or rates is None or not rates[0] or not total:
        return ""
    return f"about {in_time((total - at) / rates[0])} left"


def _activities(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    shares = sorted(((spent / total, name) for name, spent in seconds.items() if spent), reverse=True)
    return ", ".join(f"{escape(name)} {100 * share:.0f}\N{NO-BREAK SPACE}%" for share, name in shares)


def _saving(saved: Saved, view: JobView, now: float) -> list[str]:
    age = f"{in_time(now - view.last_saved_at)} ago, {in_bytes(saved.bytes)} in {saved.seconds:.2f} s"
    return [age, f"the loop waited {saved.stall_seconds:.2f} s"]


def _budget(view: JobView, counts: Counts) -> str:
    amp, fallen = view.config.amp, sum(counts.fp32_fallbacks.values())
    limit = f"limit {amp.max_fp32_fallbacks} an epoch, then {amp.on_fallback_limit}"
    return f"{fallen} fell back to float32 ({100 * counts.fallback_ratio:.2g} %); {limit}"


def _cause_row(cause: Cause, counts: Counts, most: int) -> str:
    skips, fallbacks = counts.skipped.get(cause, 0), counts.fp32_fallbacks.get(cause, 0)
    drawing = '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
    bar = f'{drawing}<rect width="{100 * fallbacks / most:.1f}" height="8"/></svg>'
    return (
        f'<tr><th scope="row">{cause}</th><td>{skips}</td><td>{fallbacks}</td><td class="bar">{bar}</td></tr>'
    )


def _event_row(told: Told) -> str:
    kind, sign = _LEVELS.get(told.level, ("", ""))
    name = f'<span class="{kind}">{sign} {told.event.name}</span>' if kind else told.event.name
    times = f" ({told.times} times)" if told.times > 1 else ""
    at = f'<span class="soft">{clock(told.event.time)}</span>'
    return f"<li>{at}<span>{name}{times}</span><span>{escape(_facts(told.event))}</span></li>"


def _facts(event: Event) -> str:
    line = ", ".join(f"{name} {_word(value)}" for name, value in facts(event).items())
    return line if len(line) <= _LONGEST_FACTS else f"{line[:_LONGEST_FACTS]}…"


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_word(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_word(inner) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
