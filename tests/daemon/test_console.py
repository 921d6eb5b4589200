"""What the one who starts a daemon sees: JSON lines in a pipe, a bar with events above it on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
from collections.abc import Iterator
from typing import TextIO

import pytest

from ampd.console import Console
from ampd.core.observed import observe
from ampd.core.protocol import Event
from tests.core.bench import job_config, job_view, ready, snapshot

EVENT = Event(boot="b", seq=1, time=1000.0, name="window.fell_back", fields={"window": 3})


@pytest.fixture
def terminal() -> Iterator[tuple[TextIO, int]]:
    """A stream that is a terminal, and the other end of it."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        yield stream, ours
    os.close(ours)


def _seen(end: int) -> str:
    os.set_blocking(end, False)
    text = b""
    while True:
        try:
            text += os.read(end, 65536)
        except (BlockingIOError, OSError):
            return text.decode()


def test_off_a_terminal_an_event_is_a_line_of_json() -> None:
    """With its time, level, name, job and facts."""
    err = io.StringIO()
    console = Console(job_view(), io.StringIO(), err)
    console.open()

    console.event(EVENT, "warning")

    assert json.loads(err.getvalue()) == {
        "time": "1970-01-01T00:16:40.000Z", "level": "warning", "event": "window.fell_back", "job": "toy", "window": 3,
    }  # fmt: skip


def test_on_a_terminal_an_event_stands_above_the_bar(terminal: tuple[TextIO, int]) -> None:
    """A person sees both: what happened, and how far the job is."""
    stream, end = terminal
    view = job_view()
    console = Console(view, io.StringIO(), stream)
    console.open()
    observe(view, 0, ready(job_config()), 1001.0)
    observe(view, 0, snapshot(30), 1002.0)

    console.event(EVENT, "warning")
    console.update()
    console.close()

    seen = _seen(end)
    assert "window.fell_back" in seen
    assert "30/100" in seen


def test_a_terminal_that_is_closed_ends_nothing() -> None:
    """The window is closed, the job goes on: no drawing, logging or summing up may raise."""
    ours, theirs = pty.openpty()
    with contextlib.suppress(OSError), os.fdopen(theirs, "w") as stream:  # its own close fails too
        view = job_view()
        console = Console(view, stream, stream)
        console.open()
        observe(view, 0, ready(job_config()), 1001.0)
        os.close(ours)

        console.update()
        console.event(EVENT, "warning")
        console.close()
        closed = True

    assert closed


def test_json_is_json_on_a_terminal_too(terminal: tuple[TextIO, int]) -> None:
    """log.format = "json" means it."""
    stream, end = terminal
    console = Console(job_view(job_config(log__format="json")), io.StringIO(), stream)
    console.open()

    console.event(EVENT, "warning")

    assert json.loads(_seen(end))["event"] == "window.fell_back"


def test_the_summary_is_all_of_standard_output() -> None:
    """A run that began is summed up there; events are not."""
    out, view = io.StringIO(), job_view()
    console = Console(view, out, io.StringIO())
    console.open()
    observe(view, 0, ready(job_config()), 1001.0)
    console.event(EVENT, "warning")

    console.close()

    assert out.getvalue().startswith("job ")
    assert "fell_back" not in out.getvalue()


def test_a_run_that_never_began_has_no_summary() -> None:
    """There is nothing to sum up; the error on standard error is enough."""
    out = io.StringIO()
    console = Console(job_view(), out, io.StringIO())
    console.open()

    console.close()

    assert out.getvalue() == ""


def test_the_log_level_holds_from_the_start() -> None:
    """log.level = "error" keeps warnings out."""
    err = io.StringIO()
    console = Console(job_view(job_config(log__level="error")), io.StringIO(), err)
    console.open()

    console.event(EVENT, "warning")

    assert err.getvalue() == ""
