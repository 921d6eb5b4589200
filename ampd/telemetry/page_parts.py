"""What the status page says, section by section: a view in, the inside of a section out, as HTML.

One function for each section, so that a section can be sent alone when only it has changed. Everything that comes from
outside (names, reasons, paths, fields of events) is escaped where it is put in; what is not known yet is said in words
and keeps its place, so that nothing on the page moves when it comes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape

from ampd.core.ledger import Counts
from ampd.core.lifecycle import JobState
from ampd.core.messages import Saved
from ampd.core.protocol import Event
from ampd.core.recent import Told, facts
from ampd.core.replies import window_of
from ampd.core.view import JobView
from ampd.telemetry.readings import precision_of, saved_window, seconds_of
from ampd.telemetry.summary import in_bytes

_SIGNS = {
    JobState.RUNNING: ("good", "▶"), JobState.COMPLETED: ("good", "✔"), JobState.FAILED: ("bad", "✖"),
    JobState.PAUSED: ("warn", "❚❚"), JobState.RECOVERING: ("warn", "↻"), JobState.STOPPING: ("warn", "■"),
    JobState.STOPPED: ("warn", "■"), JobState.STARTING: ("soft", "…"),
}  # fmt: skip
_LEVELS = {"warning": ("warn", "▲"), "error": ("bad", "✖")}
_LONGEST_FACTS = 240


def state(view: JobView) -> str:
    """Which job, how it is, and why."""
    kind, sign = _SIGNS[view.state]
    message = view.result.message if view.result is not None else view.state_reason
    why = f'<p class="soft">{escape(message)}</p>' if message else ""
    word = f'<span class="state {kind}"><span aria-hidden="true">{sign} </span>{view.state}</span>'
    return f"<h1>{escape(view.name)}: {word}</h1>{why}"


def progress(view: JobView, now: float) -> str:
    """How far it is, and what is left."""
    at, total = window_of(view), _total(view)
    bar = f'<progress max="{total or 1}" value="{at}" aria-label="windows done">{at} of {total}</progress>'
    epoch = f", epoch {view.snapshot.epoch}" if view.snapshot is not None else ""
    done = f"window {at} of {total} ({100 * at / total:.1f} %){epoch}" if total else "no window yet"
    since = f"last window {in_time(now - view.last_progress)} ago" if view.last_progress else ""
    facts = [done, _left(view, at, total), since, f"as of {clock(now)} UTC"]
    return bar + '<p class="row">' + "".join(f"<span>{fact}</span>" for fact in facts if fact) + "</p>"


def precision(view: JobView) -> str:
    """What windows are first attempted at, and the reason."""
    found = precision_of(view)
    if found is None:
        return _headed("Precision", "not chosen yet", ["", ""])
    reason = escape(view.choice.reason) if view.choice is not None else ""
    emulated = view.choice is not None and not view.choice.is_native
    lines = [reason, f"revision {view.revision}, TF32 {'allowed' if view.config.amp.enable_tf32 else 'off'}"]
    if emulated:
        lines.append('<span class="warn">▲ emulated on this device: it costs time</span>')
    return _headed("Precision", str(found), lines)


def speed(view: JobView) -> str:
    """Throughput of late, and what the time went into."""
    rates = view.trace.rates()
    if rates is None:
        return _headed("Throughput", "none yet", ["", ""])
    windows, samples, tokens = rates
    more = f"{samples:.4g} samples/s" + (f", {tokens:.4g} tokens/s" if tokens else "")
    return _headed("Throughput", f"{windows:.3g} windows/s", [more, _activities(seconds_of(view))])


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
    failed = (
        f'<span class="bad">✖ {view.checkpoint_failures} failed</span>' if view.checkpoint_failures else ""
    )
    at_risk = f"a crash now loses {max(0, window_of(view) - saved_window(view))} windows"
    if view.last_saved is None:
        resumed = saved_window(view)
        figure = f"resumed from {resumed}" if resumed else "none yet"
        return _headed("Checkpoint", figure, [at_risk, failed])
    return _headed("Checkpoint", f"window {view.last_saved.window}", [*_saving(view.last_saved, view, now), at_risk, failed])  # fmt: skip


def windows(view: JobView) -> str:
    """What became of every window, and why some went another way."""
    counts = view.snapshot.job if view.snapshot is not None else view.counts
    done = max(1, counts.windows)
    skipped, fallen = sum(counts.skipped.values()), sum(counts.fp32_fallbacks.values())
    rows = [
        _ledger_row("applied", counts.applied, done),
        _ledger_row("skipped", skipped, done),
        _ledger_row("quarantined", counts.quarantined, done),
        _ledger_row("fell back to float32", fallen, done),
    ]
    table = f"<table>{''.join(rows)}</table>"
    causes = _causes("Fallbacks by cause", counts.fp32_fallbacks) + _causes("Skips by cause", counts.skipped)
    return _headed("Windows", f"{counts.windows}", [_budget(view, counts)]) + table + causes


def events(view: JobView) -> str:
    """What happened last, newest first."""
    rows = "".join(_event_row(told) for told in reversed(view.recent.lines))
    return f'<h2>Last events</h2><table class="events">{rows}</table>'


def clock(moment: float) -> str:
    """The time of day, in UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(moment))


def in_time(seconds: float) -> str:
    """A length of time in its two greatest units: "3 min 20 s"."""
    whole = max(0, int(seconds))
    for size, unit, below, lesser in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below:02} {lesser}"
    return f"{whole} s"


def _headed(title: str, figure: str, lines: list[str]) -> str:
    below = "".join(f"<p>{line}</p>" if line else "" for line in lines)
    return f'<h2>{title}</h2><p class="figure">{figure}</p>{below}'


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
    return ", ".join(f"{escape(name)} {share:.0%}" for share, name in shares)


def _saving(saved: Saved, view: JobView, now: float) -> list[str]:
    age = f"{in_time(now - view.last_saved_at)} ago, {in_bytes(saved.bytes)} in {saved.seconds:.2f} s"
    return [age, f"the loop waited {saved.stall_seconds:.2f} s"]


def _budget(view: JobView, counts: Counts) -> str:
    share = f"{100 * counts.fallback_ratio:.2g} % fell back"
    limit = f"limit {view.config.amp.max_fp32_fallbacks} an epoch, then {view.config.amp.on_fallback_limit}"
    reached = (
        f'; <span class="warn">▲ reached {view.limit_reached} times</span>' if view.limit_reached else ""
    )
    return f"{share}; {limit}{reached}"


def _ledger_row(name: str, count: int, of: int) -> str:
    return f'<tr><th scope="row">{name}</th><td>{count}</td>{_bar(count / of)}</tr>'


def _causes(title: str, counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    if not total:
        return ""
    parts = sorted(counts.items(), key=lambda part: (-part[1], part[0]))
    rows = "".join(_ledger_row(escape(name), count, total) for name, count in parts if count)
    return f"<h2>{title}</h2><table>{rows}</table>"


def _bar(share: float) -> str:
    drawing = '<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
    return f'<td class="bar">{drawing}<rect width="{100 * min(1.0, share):.1f}" height="8"/></svg></td>'


def _event_row(told: Told) -> str:
    kind, sign = _LEVELS.get(told.level, ("", ""))
    name = f'<span class="{kind}">{sign} {told.event.name}</span>' if kind else told.event.name
    times = f" ({told.times} times)" if told.times > 1 else ""
    at = f'<th scope="row">{clock(told.event.time)}</th>'
    return f'<tr>{at}<td class="name">{name}{times}</td><td>{escape(_facts(told.event))}</td></tr>'


def _facts(event: Event) -> str:
    line = ", ".join(f"{name} {_word(value)}" for name, value in facts(event).items())
    return line if len(line) <= _LONGEST_FACTS else f"{line[:_LONGEST_FACTS]}…"


def _word(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
