"""The log of the supervisor: one line per event, its name a constant and its facts as fields.

Off a terminal a line is JSON that a collector can index (`{"time": ..., "level": ..., "event":
"window.fell_back", ...}`); on one it is short and for people. The same event stream feeds `ampctl events`, so
the log says nothing that cannot be had from there, and nothing else is written.

Where lines go is a fact of the process, as its standard error is: hence functions, and one output behind
them. A fault storm must not fill a disk, so an event name has a budget of lines per interval; what was held
back is counted and said. Errors are never held back. A log that cannot be written to (a closed pipe, a full
disk) is counted and said too when it can be written again: it never stops the job.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec
import structlog

from ampd.core.change import Difference, show
from ampd.core.protocol import Event
from ampd.telemetry.log_lines import LEVELS, Lines, lines

Format = Literal["auto", "json", "terminal"]
Fields = MutableMapping[str, Any]

_RESERVED = frozenset({"time", "level", "event", "job"})
_NOT_LOGGED = frozenset({"config"})  # a whole job file; `ampctl get` shows it
# JSON may hold these as they are, but a terminal obeys some of them and a reader of lines ends a line at others.
_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}
_BUDGET_LINES = 20
_BUDGET_SECONDS = 10.0


class Budget:
    """Lets so many lines of a name through in each interval, and counts the others."""

    def __init__(
        self,
        lines: int = _BUDGET_LINES,
        seconds: float = _BUDGET_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines = lines
        self._seconds = seconds
        self._clock = clock
        self._spent: dict[str, tuple[float, int]] = {}

    def admits(self, name: str) -> bool:
        """True where a line of this name may be written now; False counts it."""
        start, spent = self._spent.get(name, (self._clock(), 0))
        self._spent[name] = (start, spent + 1)
        return spent < self._lines

    def settle(self) -> Iterator[tuple[str, int]]:
        """The names whose interval is over, with how many lines each was refused; they start afresh."""
        now = self._clock()
        over = [name for name, (start, _spent) in self._spent.items() if now - start >= self._seconds]
        for name in over:
            held_back = self._spent.pop(name)[1] - self._lines
            if held_back > 0:
                yield name, held_back


class Output:
    """One stream with its level and form; used from one thread, the supervisor's."""

    def __init__(
        self, level: str, form: Format, stream: TextIO, *, job: str = "", budget: Budget | None = None,
        lines: Lines | None = None,
    ) -> None:  # fmt: skip
        self.lines = lines or Lines()
        self._threshold = LEVELS[level]
        self._stream = stream
        self._budget = budget or Budget()
        self._lost = 0
        is_terminal = form == "terminal" or (form == "auto" and stream.isatty())
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(stream),
            processors=[_render_terminal if is_terminal else _render_json],
            wrapper_class=structlog.BoundLogger,
            job=job,
        )

    def set_level(self, level: str) -> None:
        """Write nothing less severe than this from now on."""
        self._threshold = LEVELS[level]

    def write(self, name: str, level: str, fields: Mapping[str, Any], at: float) -> None:
        """One line, unless its level or its budget keeps it back; never raises for the stream's sake."""
        for held_name, count in self._budget.settle():
            self._put("log.held_back", "warning", {"name": held_name, "lines": count}, at)
        if LEVELS[level] < self._threshold:
            return
        if level == "error" or self._budget.admits(name):
            self._put(name, level, fields, at)
        else:
            self.lines.left_out["budget"] += 1

    def _put(self, name: str, level: str, fields: Mapping[str, Any], at: float) -> None:
        facts = {f"field.{key}" if key in _RESERVED else key: value for key, value in flat(fields)}
        if self._lost:
            facts["lost_lines"] = self._lost
        try:
            self._logger.msg(name, time=_iso(at), level=level, **facts)
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._lost += 1
            self.lines.left_out["stream"] += 1
        else:
            self._lost = 0
            self.lines.written[level] += 1


class _Adopted(logging.Handler):
    """Passes what a library logs on to ours, so that no second form of line appears and nothing is swallowed."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = repr(record.exc_info[1])
        level = "error" if record.levelno >= logging.ERROR else "warning"
        log("library.complained", level, fields, at=record.created)


_output: Output | None = None  # standard error until `configure` says otherwise


def configure(level: str, format: Format, stream: TextIO, *, job: str = "") -> None:
    """Send the log to `stream`; "auto" is JSON unless it is a terminal. `job` goes on every JSON line."""
    global _output
    _output = Output(level, format, stream, job=job, lines=lines())  # counters never run backwards


def set_level(level: str) -> None:
    """Log nothing less severe than `level` (debug, info, warning, error)."""
    _current().set_level(level)


def log_event(event: Event, level: str) -> None:
    """Log an event as one line, at the event's own time."""
    log(event.name, level, event.fields, at=event.time)


def log(name: str, level: str, fields: Mapping[str, Any], *, at: float) -> None:
    """Log something that is not an event of the job, such as the canonical line; `at` is in Unix seconds."""
    _current().write(name, level, fields, at)


def adopt(logger: str) -> None:
    """Take warnings and errors of a library's logger into our log, and nothing of it anywhere else."""
    adopted = logging.getLogger(logger)
    adopted.handlers = [_Adopted(level=logging.WARNING)]
    adopted.propagate = False


def _current() -> Output:
    global _output
    if _output is None:
        _output = Output("info", "auto", sys.stderr, lines=lines())
    return _output


def flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted keys, so that a collector can index each fact; a whole configuration is left out."""
    for key, value in fields.items():
        if isinstance(value, Mapping):
            if key not in _NOT_LOGGED:
                yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", [_item(item) for item in value]
        else:
            yield f"{prefix}{key}", value


def _item(item: Any) -> Any:
    """An item of a list: a changed key as "key old -> new", another table as text, anything else as it is."""
    if not isinstance(item, Mapping):
        return item
    if item.keys() == {"key", "old", "new"}:
        return str(msgspec.convert(item, Difference))
    return ", ".join(f"{key}={show(value)}" for key, value in flat(item))


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _render_json(_logger: object, _method: str, line: Fields) -> str:
    """JSON through msgspec, which writes NaN as null; the standard library would write what is not JSON."""
    head = {"time": line.pop("time"), "level": line.pop("level"), "event": line.pop("event")}
    job = line.pop("job")
    document = head | ({"job": job} if job else {}) | dict(line)
    return msgspec.json.encode(document).decode().translate(_ESCAPES)


def _render_terminal(_logger: object, _method: str, line: Fields) -> str:
    clock = datetime.fromisoformat(line.pop("time")).astimezone().strftime("%H:%M:%S")
    level, name, _job = line.pop("level"), line.pop("event"), line.pop("job")
    mark = "" if level == "info" else f"{level}: "
    facts = "  ".join(f"{key}={_short(value)}" for key, value in line.items() if value not in (None, "", []))
    return f"{clock}  {mark}{name}  {facts}".rstrip()


def _short(value: Any) -> str:
    """A fact on one line: line breaks and control characters would forge lines or move the cursor."""
    text = show(value)
    return text if text.isprintable() else ascii(text)[1:-1]
