"""What whoever started the daemon sees: JSON lines, or on a terminal a progress bar with events above it.

Standard error is for what happens, standard output for the one thing that a run is for: its summary at the end.
"""

from __future__ import annotations

import contextlib
import io
import time
from typing import TextIO

from ampd.core.protocol import Event
from ampd.core.view import JobView
from ampd.telemetry import logs
from ampd.telemetry.canonical import Mark, canonical
from ampd.telemetry.progress import Progress


class Console:
    """The terminal or log of one daemon, from `open` to `close`."""

    def __init__(self, view: JobView, out: TextIO, err: TextIO) -> None:
        self._view = view
        self._out = out
        self._err = err
        wants_bar = err.isatty() and view.config.log.format != "json"
        self._bar = _bar_on(err) if wants_bar else None
        self._mark = Mark.of(view, time.monotonic())

    def open(self) -> None:
        """Begin to show, also what the sockets complain of."""
        logs.adopt("ampd.control")
        log, name = self._view.config.log, self._view.name
        if self._bar is None:
            logs.configure(log.level, log.format, self._err, job=name)
            return
        self._bar.start(self._view)
        logs.configure(log.level, "terminal", _AboveBar(self._bar), job=name)

    def event(self, event: Event, level: str) -> None:
        """Something happened."""
        logs.log_event(event, level)

    def complain(self, name: str, error: str, now: float) -> None:
        """Something of the daemon's own went wrong, and it goes on without."""
        logs.log(name, "error", {"error": error}, at=now)

    def set_level(self, level: str) -> None:
        """Show nothing less severe from now on."""
        logs.set_level(level)

    def update(self) -> None:
        """The view has changed."""
        if self._bar is not None:
            self._bar.update(self._view)

    def tick(self, now: float) -> None:
        """To be called more often than `log.interval_seconds`: writes the canonical line when it is due."""
        before, mark = self._mark, Mark.of(self._view, time.monotonic())
        if self._bar is not None or mark.time - before.time < self._view.config.log.interval_seconds:
            return
        self._mark = mark
        logs.log("job.progressed", "info", canonical(self._view, mark.rate_since(before)), at=now)

    def close(self) -> None:
        """Stop showing, and sum up a run that had begun."""
        with contextlib.suppress(OSError):  # nobody reads any more
            if self._bar is not None:
                self._bar.stop()
            if self._view.ready is not None:
                from ampd.telemetry.summary import summary

                print(summary(self._view), file=self._out, flush=True)


def _bar_on(stream: TextIO) -> Progress:
    from rich.console import (
        Console as Terminal,
    )  # a tenth of a second that a daemon without a terminal is spared

    return Progress(Terminal(file=stream))


class _AboveBar(io.StringIO):
    """A text stream whose lines appear above the bar."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self._bar = bar
        self._line = ""

    def write(self, text: str, /) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._bar.event(line)
        return len(text)

    def isatty(self) -> bool:
        return True
