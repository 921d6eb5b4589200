"""One frame of `ampctl status --watch`: answers of the daemon in, lines of a terminal out. Pure, so that it can be tested.

The lines fit the width they are given, and the height: events give way first, and a terminal of 80 by 24 shows all
there is to know. Colour only repeats what a word says; without Unicode the same curves are drawn in ASCII.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from ampd.cli.ctl_pages import among_nodes, trial_now
from ampd.core.change import show
from ampd.core.shown import in_bytes, in_time, note

Line = Text
Value = float | None

MOST = 600
"""Answers that are remembered: five minutes."""

_STYLES = {
    "running": "bold green", "completed": "bold green", "paused": "bold yellow", "recovering": "bold yellow",
    "stopping": "bold yellow", "failed": "bold red",
}  # fmt: skip
_LEVELS = {"warning": "yellow", "error": "red"}
_LABEL = 12
_ABSURD = 1e100
"""What is beyond this, or no number, is a gap: one such figure would flatten all the others."""


class Signs(msgspec.Struct, frozen=True):
    """What curves, bars and rules are drawn with: lowest to highest, full and empty, rule, cut."""

    levels: str
    full: str
    empty: str
    rule: str
    cut: str

    @classmethod
    def of(cls, console: Console) -> Signs:
        """Those that the terminal can show."""
        is_plain = console.is_dumb_terminal or not console.encoding.lower().startswith("utf")
        return ASCII if is_plain else UNICODE


UNICODE = Signs("▁▂▃▄▅▆▇█", "━", "·", "─", "…")
ASCII = Signs("_.,-~=*#", "#", ".", "-", ">")


class History:
    """Loss, norm and scale as they were seen; one thread."""

    def __init__(self) -> None:
        self.seen: deque[tuple[float, dict[str, Value]]] = deque(maxlen=MOST)

    def add(self, status: Mapping[str, Any], now: float) -> None:
        """Remember an answer."""
        self.seen.append((now, {name: status.get(name) for name in ("loss", "grad_norm", "scale")}))

    def of(self, name: str) -> list[Value]:
        """A figure, oldest first."""
        return [figures[name] for _now, figures in self.seen]


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What a frame is drawn from; `silent_since` is when the daemon stopped answering, 0 while it answers."""

    status: Mapping[str, Any]
    stats: Mapping[str, Any]
    history: History
    now: float
    silent_since: float = 0.0


def draw(frame: Frame, signs: Signs, *, width: int, height: int = 0) -> list[Line]:
    """The frame's lines, none wider than `width`; with a `height`, no more than that many."""
    top = [*_head(frame, signs, width), *_curves(frame, signs, width), *_ledger(frame, signs, width)]
    events = _events(frame.status.get("recent_events") or (), signs, width)
    if height:
        room = max(0, height - 1 - len(top))
        events = events[:room] if room > 1 else []
    lines = [*top, *events][: (height - 1) or None if height else None]
    return [_fitted(line, signs, width) for line in lines]


def sparkline(values: Sequence[Value], signs: Signs, width: int, *, is_log: bool = False) -> str:
    """The last values in `width` characters; a space where none is known."""
    heights = [_height(value, is_log=is_log) for value in _folded(values, width)]
    known = [height for height in heights if height is not None]
    if not known:
        return ""
    least, span = min(known), max(known) - min(known)
    top = len(signs.levels) - 1
    return "".join(
        " " if height is None else signs.levels[round(top * (height - least) / span) if span else top // 2]
        for height in heights
    )


def _folded(values: Sequence[Value], width: int) -> list[Value]:
    """At most `width` values: neighbours become their mean, from the oldest on."""
    step = max(1, math.ceil(len(values) / max(1, width)))
    groups = (values[at : at + step] for at in range(0, len(values), step))
    return [
        _mean([value for value in group if value is not None and abs(value) < _ABSURD]) for group in groups
    ]


def _mean(known: Sequence[float]) -> Value:
    return sum(known) / len(known) if known else None


def _height(value: Value, *, is_log: bool) -> Value:
    if value is None or (is_log and value <= 0):
        return None
    return math.log2(value) if is_log else value


def _head(frame: Frame, signs: Signs, width: int) -> list[Line]:
    s = frame.status
    state = str(s.get("state", "?"))
    title = Text.assemble((str(s.get("name", "?")), "bold"), "  ", (state, _STYLES.get(state, "bold")))
    title.append(note(s.get("message") or s.get("state_reason")))
    title.append(f"  {time.strftime('%H:%M:%S', time.localtime(frame.now))}", "dim")
    if frame.silent_since:
        title.append(f"  no answer for {in_time(frame.now - frame.silent_since)}", "bold red")
    return [title, *(_row(*row) for row in among_nodes(s)), _progress(s, signs, width)]


def _progress(s: Mapping[str, Any], signs: Signs, width: int) -> Line:
    window, total, speed = s.get("window") or 0, s.get("total_windows"), s.get("windows_per_second")
    if not total:
        return Text("no window yet")
    left = f"  {in_time((total - window) / speed)} left" if speed and s.get("state") == "running" else ""
    words = f" {window}/{total} {100 * window / total:.1f} %  epoch {show(s.get('epoch'))}{left}"
    cells = max(4, width - len(words))
    full = round(cells * min(1.0, window / total))
    return Text.assemble((signs.full * full, "green"), (signs.empty * (cells - full), "dim"), words)


def _curves(frame: Frame, signs: Signs, width: int) -> list[Line]:
    s, history = frame.status, frame.history
    precision = str(s.get("precision") or "not chosen yet") + note(s.get("precision_reason"))
    best = note(f"best {_number(s['best_loss'])}" if s.get("best_loss") is not None else "")
    rows = [
        _row("precision", precision),
        *([_row("trial", trial_now(s["trial"]), "yellow")] if s.get("trial") else []),
        _curve("loss", _number(s.get("loss")) + best, history.of("loss"), signs, width),
        _curve("grad norm", _number(s.get("grad_norm")), history.of("grad_norm"), signs, width, is_log=True),
        _curve("loss scale", _scale(s.get("scale")), history.of("scale"), signs, width, is_log=True),
        _row("speed", f"{_number(s.get('windows_per_second'))} windows/s, {_number(s.get('samples_per_second'))} samples/s, lr {_number(s.get('lr'))}"),
    ]  # fmt: skip
    return [_rule(signs, width), *rows]


def _ledger(frame: Frame, signs: Signs, width: int) -> list[Line]:
    s = frame.status
    job: Mapping[str, Any] = frame.stats.get("job", {})
    span: Mapping[str, Any] = frame.stats.get("span", {})
    quarantined = job.get("quarantined", 0)
    fallbacks = _by_cause(s.get("fp32_fallbacks"))
    rows = [
        _row("windows", f"{show(s.get('applied'))} applied, {quarantined} quarantined, skipped {_by_cause(s.get('skipped'))}"),
        _row("fallbacks", f"{fallbacks}, {100 * job.get('fallback_ratio', 0.0):.2g} % of windows", "yellow" if fallbacks != "0" else ""),
        _row("since reset", f"{span.get('windows', 0)} windows, {_by_cause(span.get('fp32_fallbacks'))} fell back, scale {_range(frame.stats.get('scale'))}"),
        _row("memory", _memory(s.get("memory"))),
        _row("saved", _saved(frame.stats)),
        _row("checkpoint", _checkpoint(s.get("checkpoint"), s.get("window"))),
        _row("restarts", f"{_by_cause(s.get('restarts'))}, revision {show(s.get('revision'))}, up {in_time(s.get('uptime_seconds') or 0)}"),
    ]  # fmt: skip
    return [_rule(signs, width), *rows]


def _events(events: Iterable[Mapping[str, Any]], signs: Signs, width: int) -> list[Line]:
    """A rule and the events, newest first."""
    lines = [_event(event) for event in reversed(list(events))]
    return [_rule(signs, width), *lines] if lines else []


def _event(event: Mapping[str, Any]) -> Line:
    at = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    times = f" x{event['times']}" if event["times"] > 1 else ""
    facts = " ".join(f"{name}={_word(value)}" for name, value in event["fields"].items())
    return Text.assemble(
        (f"{at} ", "dim"), (event["name"] + times, _LEVELS.get(event["level"], "")), f"  {facts}"
    )


def _curve(
    label: str, figure: str, values: Sequence[Value], signs: Signs, width: int, *, is_log: bool = False
) -> Line:
    row = _row(label, f"{figure:<26} ")
    row.append(sparkline(values, signs, max(8, width - len(row) - 1), is_log=is_log), "cyan")
    return row


def _row(label: str, words: str, style: str = "") -> Line:
    return Text.assemble((f"{label:<{_LABEL}}", "dim"), (words, style))


def _rule(signs: Signs, width: int) -> Line:
    return Text(signs.rule * width, "dim")


def _fitted(line: Line, signs: Signs, width: int) -> Line:
    """One line of at most `width` cells, without anything that a terminal would obey."""
    clean = line.copy()
    clean.plain = "".join(
        c if c.isprintable() and (signs is UNICODE or c.isascii()) else "?" for c in line.plain
    )
    if clean.cell_len > width:
        clean.truncate(width - 1)
        clean.append(signs.cut)
    return clean


def _memory(memory: Mapping[str, float] | None) -> str:
    return ", ".join(f"{kind} {in_bytes(size)}" for kind, size in (memory or {}).items()) or "not measured"


def _saved(stats: Mapping[str, Any]) -> str:
    saved = stats.get("memory_saved")
    return (
        f"{in_bytes(saved['bytes'])} a micro-batch less than in float32 ({saved['basis']})"
        if saved
        else "nothing, or not measured yet"
    )


def _checkpoint(saved: Mapping[str, Any] | None, window: int | None) -> str:
    if not saved:
        return "none by this daemon"
    lost = max(0, (window or 0) - saved["window"])
    return f"window {saved['window']}, {in_time(saved['age_seconds'])} ago; a crash now loses {lost} windows"


def _scale(scale: Value) -> str:
    if scale is None:
        return "off"
    power = math.log2(scale) if scale > 0 else 0.5
    return f"{scale:g}" + (f" = 2^{int(power)}" if power.is_integer() else "")


def _range(scale: Mapping[str, Value] | None) -> str:
    parts = [(scale or {}).get(name) for name in ("min", "mean", "max")]
    return "/".join(_number(part) for part in parts) if any(part is not None for part in parts) else "off"


def _by_cause(counts: Mapping[str, int] | None) -> str:
    known = {cause: count for cause, count in (counts or {}).items() if count}
    parts = ", ".join(f"{cause} {count}" for cause, count in sorted(known.items(), key=lambda part: -part[1]))
    return f"{sum(known.values())} ({parts})" if known else "0"


def _word(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{_word(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_word(inner) for inner in value)
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: Value) -> str:
    return "-" if value is None else f"{value:.5g}"
