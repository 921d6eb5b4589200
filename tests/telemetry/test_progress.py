"""The progress bar, drawn on a console that writes to a string."""

from __future__ import annotations

import errno
import io
import subprocess
import sys

import pytest
from rich.console import Console

from ampd.core.ledger import Counts
from ampd.core.lifecycle import JobState
from ampd.core.view import JobView
from ampd.telemetry.progress import Progress
from tests.telemetry import views


class Clock:
    """Time that moves when it is told to."""

    now = views.STARTED

    def __call__(self) -> float:
        return self.now


def bar(width: int = 160) -> tuple[Progress, io.StringIO, Clock]:
    """A bar, what it writes, and its clock."""
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    return Progress(console, clock=clock), stream, clock


def at(window: int, done: int) -> JobView:
    """A running job at a window, with so many windows done by this daemon."""
    return views.running(snapshots={0: views.snapshot(window=window, counts=Counts(windows=done))})


def test_the_bar_shows_loss_precision_scale_speed_and_time_left() -> None:
    """What an engineer looks for, on one line."""
    progress, stream, clock = bar()
    progress.start(at(400, 0))
    clock.now += 2
    progress.update(at(440, 40))
    progress.stop()

    last = stream.getvalue().split("\r")[-1]
    for fact in (
        "bytes",
        "440/1200",
        "loss 1.6250",
        "float16",
        "scale 32768",
        "20.0 windows/s",
        "ETA 0:00:38",
    ):
        assert fact in last, last


def test_a_job_that_is_not_running_says_so() -> None:
    """A bar that stands still has a reason."""
    progress, stream, _clock = bar()
    progress.start(views.running(state=JobState.PAUSED))
    progress.stop()

    assert "paused" in stream.getvalue()


def test_a_bar_before_the_worker_speaks_has_no_total() -> None:
    """Nothing is made up: no percentage, no time left."""
    progress, stream, _clock = bar()
    progress.start(views.starting())
    progress.stop()

    assert "starting" in stream.getvalue()
    assert "ETA" not in stream.getvalue()


def test_an_event_is_printed_above_the_bar_as_it_is() -> None:
    """Square brackets are text, not markup."""
    progress, stream, _clock = bar()
    progress.start(at(400, 0))
    progress.event("12:00:00  config.applied  differences=[amp.dtype float16 -> bfloat16]")
    progress.stop()

    assert "differences=[amp.dtype float16 -> bfloat16]" in stream.getvalue()


def test_the_bar_gives_way_to_the_figures_on_a_narrow_terminal() -> None:
    """80 columns are enough for one line with every figure whole."""
    progress, stream, clock = bar(width=80)
    progress.start(at(400, 0))
    clock.now += 2
    progress.update(at(440, 40))
    progress.stop()

    (last, _cursor) = stream.getvalue().split("\r")[-1].split("\n")
    assert last.endswith("440/1200 loss 1.6250  float16  scale 32768  20.0 windows/s ETA 0:00:38")
    assert last.removeprefix("\x1b[2K").startswith("bytes ━")


def test_stopping_twice_and_updating_a_stopped_bar_do_nothing() -> None:
    """A shutdown comes from several sides."""
    progress, stream, _clock = bar()
    progress.start(at(400, 0))
    progress.stop()
    written = len(stream.getvalue())

    progress.stop()
    progress.update(at(500, 100))

    assert len(stream.getvalue()) == written


def test_an_event_after_the_bar_is_still_printed() -> None:
    """What goes wrong during shutdown is not swallowed with the bar."""
    progress, stream, _clock = bar()
    progress.start(at(400, 0))
    progress.stop()

    progress.event("checkpoint.failed  message=disk full")

    assert stream.getvalue().endswith("checkpoint.failed  message=disk full\n")


class Closing(io.StringIO):
    """A terminal that somebody closes."""

    is_gone = False

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def test_a_terminal_that_goes_away_ends_the_bar_and_not_the_job() -> None:
    """Closing the window of a foreground job must not kill it through its progress bar."""
    stream = Closing()
    progress = Progress(Console(file=stream, force_terminal=True, width=80))
    progress.start(at(400, 0))

    stream.is_gone = True
    progress.update(at(440, 40))
    stream.is_gone = False
    written = len(stream.getvalue())
    progress.update(at(480, 80))
    progress.stop()

    assert len(stream.getvalue()) == written


@pytest.mark.parametrize("module", ["progress", "summary", "page", "collector", "metrics"])
def test_rich_is_loaded_only_when_a_bar_starts(module: str) -> None:
    """Nor does any of these load torch, a web server or a socket library."""
    code = (
        f"import sys, ampd.telemetry.{module};"
        "print([name for name in ('rich', 'torch', 'uvicorn', 'zmq') if name in sys.modules])"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
