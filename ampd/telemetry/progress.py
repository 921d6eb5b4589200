"""The progress bar of a job that runs in the foreground on a terminal.

rich is loaded when the bar starts, because a daemon that logs JSON never needs it. The bar has no thread of
its own: it is drawn when a snapshot arrives, and it leaves the process's streams alone. The time left is
computed here from windows and not by rich from its own samples, because a bar that starts at window 5000 of a
resumed job would otherwise show a wild guess.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ampd.core.view import JobView
from ampd.telemetry.canonical import Mark, canonical

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_SMOOTHING = 0.3
"""Weight of the newest rate in the one that is shown: calm, and right again within a few updates."""

_LEAST_SECONDS = 0.5
"""Rates over less time than this jump about."""


class Progress:
    """A bar with loss, precision, scale, windows/s and time left. One thread; `console` is standard error's."""

    def __init__(
        self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._clock = clock
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._last: Mark | None = None
        self._rate: float | None = None

    def start(self, view: JobView) -> None:
        """Show the bar; starting it twice shows one."""
        if self._bar is not None:
            return
        self._bar = _build(self._console)
        self._task = self._bar.add_task(view.name, total=None, count="", facts="", left="")
        self._last = Mark.of(view, self._clock())
        self._bar.start()
        self.update(view)

    def update(self, view: JobView) -> None:
        """Draw what the view says now; without effect before `start`."""
        if self._bar is None or self._task is None:
            return
        self._measure(view)
        fields = canonical(view, self._rate or 0.0)
        total, window = fields["total_windows"] or None, fields["window"]
        self._bar.update(
            self._task,
            total=total,
            completed=window,
            count=f"{window}/{total}" if total else "",
            facts=_facts(fields, self._rate),
            left=_left(total, window, self._rate),
        )
        try:
            self._bar.refresh()
        except OSError:  # the terminal is gone; the job is not
            self._bar = None

    def event(self, text: str) -> None:
        """Print a line above the bar, exactly as it is: no markup, no highlighting. Without a bar it is just printed."""
        console = self._bar.console if self._bar is not None else self._console
        if console is None:
            print(text, file=sys.stderr)
        else:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Leave the last state of the bar on the screen, and the terminal as it was."""
        bar, self._bar = self._bar, None
        if bar is not None:
            with contextlib.suppress(OSError):
                bar.stop()

    def _measure(self, view: JobView) -> None:
        mark = Mark.of(view, self._clock())
        if self._last is None or mark.time - self._last.time < _LEAST_SECONDS:
            return
        rate = mark.rate_since(self._last)
        self._rate = rate if self._rate is None else self._rate + _SMOOTHING * (rate - self._rate)
        self._last = mark


def _build(console: Console | None) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    def text(field: str) -> TextColumn:
        return TextColumn(field, markup=False, table_column=Column(no_wrap=True))

    return Bar(
        text("{task.description}"),
        BarColumn(bar_width=20),  # the only column that gives way on a narrow terminal
        text("{task.fields[count]}"),
        text("{task.fields[facts]}"),
        text("{task.fields[left]}"),
        console=console or Console(stderr=True),
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _facts(fields: dict[str, object], rate: float | None) -> str:
    loss, scale = fields["loss"], fields["scale"]
    parts = [
        str(fields["state"]) if fields["state"] != "running" else "",
        f"loss {loss:.4f}" if isinstance(loss, float) else "",
        str(fields["precision"] or ""),
        f"scale {scale:g}" if isinstance(scale, float) else "",
        f"{rate:.1f} windows/s" if rate is not None else "",
    ]
    return "  ".join(part for part in parts if part)


def _left(total: int | None, window: int, rate: float | None) -> str:
    if not total or not rate:
        return ""
    seconds = round(max(total - window, 0) / rate)
    hours, rest = divmod(seconds, 3600)
    return f"ETA {hours}:{rest // 60:02}:{rest % 60:02}"
