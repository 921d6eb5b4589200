"""`ampctl status --watch`: a frame that fits and says it all, and a view that ends well however it ends."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ampd.cli.ampctl import cli
from ampd.cli.watch_frame import ASCII, UNICODE, Frame, History, Signs, draw, sparkline
from ampd.core import protocol
from ampd.core.protocol import Done, Request
from tests.cli.conftest import Serve
from tests.control.served import done

NOW = 1_800_000_600.0
EVENT = {
    "time": NOW,
    "name": "window.fell_back",
    "level": "warning",
    "times": 63,
    "fields": {"cause": "scale"},
}
STATUS: dict[str, Any] = {
    "name": "bytes", "state": "running", "state_reason": "resumed at window 12", "message": "", "window": 2399,
    "total_windows": 4000, "epoch": 2, "revision": 3, "precision": "float16", "precision_reason": "named", "scale": 1024.0,
    "loss": 1.29184, "best_loss": 1.3127, "grad_norm": 0.59, "lr": 0.001, "windows_per_second": 4.0,
    "samples_per_second": 128.0, "applied": 2395, "skipped": {"data": 2, "model": 1}, "restarts": {"crashed": 1},
    "fp32_fallbacks": {"forward": 20, "scale": 43}, "memory": {"peak": 536_870_912.0}, "uptime_seconds": 600.0,
    "checkpoint": {"window": 2350, "path": "/c/2350", "age_seconds": 9.0},
    "recent_events": [EVENT | {"time": NOW - at} for at in range(16, 0, -1)],
}  # fmt: skip
STATS: dict[str, Any] = {
    "job": {"quarantined": 1, "fallback_ratio": 0.0263}, "span": {"windows": 400, "fp32_fallbacks": {"scale": 5}},
    "scale": {"min": 64.0, "mean": 900.0, "max": 1024.0}, "memory_saved": {"bytes": 2_000_000, "basis": "float32 window"},
}  # fmt: skip


def frame(**changed: Any) -> Frame:
    """A job with a story, seen for a minute."""
    history = History()
    for step in range(120):
        history.add(
            {"loss": 3 - step / 100, "grad_norm": 1.0, "scale": 2.0 ** (16 - step // 12)}, NOW + step / 2
        )
    named: dict[str, Any] = {"status": STATUS, "stats": STATS, "history": history, "now": NOW}
    return Frame(**named | changed)


def text(made: Frame, signs: Signs = UNICODE, *, width: int = 80, height: int = 24) -> str:
    return "\n".join(line.plain for line in draw(made, signs, width=width, height=height))


@pytest.mark.parametrize("said", [
    "bytes  running (resumed at window 12)", "2399/4000 60.0 %  epoch 2  6 min 40 s left", "float16 (named)",
    "1.2918 (best 1.3127)", "1024 = 2^10", "4 windows/s, 128 samples/s, lr 0.001",
    "2395 applied, 1 quarantined, skipped 3 (data 2, model 1)", "63 (scale 43, forward 20), 2.6 % of windows",
    "400 windows, 5 (scale 5) fell back, scale 64/900/1024", "peak 537 MB",
    "2 MB a micro-batch less than in float32 (float32 window)", "window 2350, 9 s ago; a crash now loses 49 windows",
    "1 (crashed 1), revision 3", "window.fell_back x63  cause=scale",
])  # fmt: skip
def test_80_by_24_says_it_all(said: str) -> None:
    """State, precision, curves, ledger, memory, checkpoint and events fit the smallest terminal."""
    assert said in text(frame())


@pytest.mark.parametrize("signs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_a_bar_is_no_rule(signs: Signs) -> None:
    """Also where there is no colour to tell them apart by, and the bar has only begun."""
    lines = text(frame(status=STATUS | {"window": 1}), signs).splitlines()
    bar = next(line for line in lines if "1/4000" in line)

    assert bar.startswith(3 * signs.empty)
    assert not bar.startswith(signs.rule)


def test_a_node_says_which_it_is() -> None:
    """Below the state, in what fits the smallest terminal; a job of one node says nothing of it."""
    of_two = STATUS | {"node": "gpu2", "leader": {"host": "gpu1", "endpoint": "tcp://gpu1:5555"}}

    assert text(frame(status=of_two)).splitlines()[1] == "node        gpu2, follows gpu1 (tcp://gpu1:5555)"
    assert "follows" not in text(frame())


@given(st.integers(20, 200), st.integers(3, 60), st.sampled_from([UNICODE, ASCII]))
def test_a_frame_fits_whatever_the_terminal(width: int, height: int, signs: Signs) -> None:
    """No line is wider, no frame is higher: a screen that scrolls by one line flickers."""
    lines = draw(frame(), signs, width=width, height=height)

    assert len(lines) < height
    assert max(line.cell_len for line in lines) <= width


def test_without_unicode_a_frame_is_ascii() -> None:
    """Also where the job's own words are not."""
    made = frame(status=STATUS | {"state_reason": "größer\x1b[2J"})

    plain = text(made, ASCII)

    assert plain.isascii()
    assert "\x1b" not in plain and "\x1b" not in text(made)


def test_before_the_first_window_nothing_is_made_up() -> None:
    """What is not known is a dash or a word."""
    empty = {"name": "bytes", "state": "starting"}

    plain = text(frame(status=empty, stats={}, history=History()))

    assert "no window yet" in plain
    assert "not chosen yet" in plain
    assert "not measured" in plain


def test_a_daemon_that_does_not_answer_is_called_so() -> None:
    """Old figures must not look live."""
    assert "no answer for 7 s" in text(frame(silent_since=NOW - 7))


@given(st.lists(st.none() | st.floats(allow_nan=True), max_size=300), st.integers(1, 80), st.booleans())
def test_a_sparkline_fits(values: list[float | None], width: int, is_log: bool) -> None:
    """Whatever the figures are; NaN and infinity are gaps."""
    line = sparkline(values, UNICODE, width, is_log=is_log)

    assert len(line) <= width
    assert set(line) <= {*UNICODE.levels, " "}


def test_a_sparkline_rises_with_its_figures() -> None:
    """The least is the lowest sign, the greatest the highest, and equal ratios are equal steps on a log scale."""
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], UNICODE, 8) == UNICODE.levels
    assert sparkline([2.0**n for n in range(8)], ASCII, 8, is_log=True) == ASCII.levels
    assert sparkline([1, None, 2], ASCII, 8) == f"{ASCII.levels[0]} {ASCII.levels[-1]}"


def test_the_history_is_bounded() -> None:
    """A view that is left open for a week does not grow."""
    history = History()
    for step in range(5000):
        history.add({"loss": step}, NOW)

    assert len(history.of("loss")) == 600
    assert history.of("loss")[-1] == 4999


@pytest.mark.parametrize(("encoding", "term", "signs"), [
    ("utf-8", "xterm", UNICODE), ("ascii", "xterm", ASCII), ("iso-8859-1", "xterm", ASCII), ("utf-8", "dumb", ASCII),
])  # fmt: skip
def test_signs_are_those_that_the_terminal_can_show(encoding: str, term: str, signs: Signs) -> None:
    """Unicode only where the encoding has it and the terminal is no dumb one."""
    with open(os.devnull, "w", encoding=encoding) as stream:
        console = Console(file=stream, force_terminal=True, _environ={"TERM": term})

        assert Signs.of(console) is signs


def script(request: Request) -> Done:
    """A daemon that runs."""
    return done(request, STATS if isinstance(request.command, protocol.Stats) else STATUS)


def ampctl(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_once_prints_one_frame(serve: Serve) -> None:
    """For a script or a look; all of it, without colours in a pipe."""
    serve(script)

    result = ampctl("status", "--watch", "--once")

    assert (result.exit_code, result.stderr) == (0, "")
    assert "window.fell_back" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("line", ["status --once", "status --watch --json"])
def test_options_that_say_nothing_together_are_refused(line: str, serve: Serve) -> None:
    """No option is silently ignored."""
    served = serve(script)

    assert ampctl(*line.split()).exit_code == 2
    assert served.requests.empty()


def test_without_a_daemon_it_ends_as_any_command(runtime: object) -> None:
    """Exit 3, one message."""
    result = ampctl("status", "--watch")

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("ampctl: no daemon is running")


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """Children that take SIGINT, even where the tests themselves run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Terminal:
    """`ampctl status --watch` on a terminal of 80 by 24."""

    def __init__(self, **environment: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "ampd.cli.ampctl", "status", "--watch"]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"} | environment,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def shows(self, words: str) -> None:
        """Read until the words have been drawn."""
        deadline = time.monotonic() + 30
        while words not in self.shown:
            assert time.monotonic() < deadline, f"{words!r} is not in {self.shown[-3000:]!r}"
            self.shown += os.read(self.ours, 65536).decode(errors="replace")

    def ends(self) -> int:
        """Read to the end; the exit code."""
        try:
            while read := os.read(self.ours, 65536):
                self.shown += read.decode(errors="replace")
        except OSError:  # how a terminal says that nobody is there any more
            pass
        os.close(self.ours)
        return self.process.wait(timeout=30)


ALTERNATE, NORMAL = "\x1b[?1049h", "\x1b[?1049l"


def test_ctrl_c_leaves_the_terminal_as_it_was(serve: Serve) -> None:
    """It is the way out: exit 0, the normal screen, the cursor, and the last frame left to read."""
    serve(script)
    terminal = Terminal()
    terminal.shows("fell_back")
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.ends() == 0
    left = terminal.shown.rpartition(NORMAL)[2]
    assert terminal.shown.count(ALTERNATE) == terminal.shown.count(NORMAL) == 1
    assert "\x1b[?25h" in terminal.shown
    assert "fell_back" in left and "Traceback" not in left


def test_a_daemon_that_goes_away_ends_the_view(serve: Serve) -> None:
    """It says so, with what was last seen, and exits with the code of a daemon that is not running."""
    served = serve(script)
    terminal = Terminal()
    terminal.shows("fell_back")
    served.loop.call(served.server.close)

    assert terminal.ends() == 3
    assert "last seen running at window 2399" in terminal.shown.rpartition(NORMAL)[2].replace("\r\n", " ")


def test_a_daemon_that_is_silent_for_a_while_is_asked_again(serve: Serve) -> None:
    """The view survives a stop of the daemon: it says that there is no answer, and goes on when there is one."""
    numbers = itertools.count()
    serve(lambda request: None if 2 <= next(numbers) < 3 else script(request))
    terminal = Terminal(NO_COLOR="1")
    terminal.shows("no answer for")
    terminal.shown = ""
    terminal.shows("bytes")
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.ends() == 0


def test_no_color_means_none(serve: Serve) -> None:
    """NO_COLOR leaves bold and dim at most: no colour is ever set."""
    serve(script)
    terminal = Terminal(NO_COLOR="1")
    terminal.shows("fell_back")
    terminal.process.send_signal(signal.SIGINT)
    terminal.ends()

    assert not any(
        f"\x1b[{code}m" in terminal.shown or f";{code}m" in terminal.shown for code in range(30, 48)
    )


def test_a_dumb_terminal_gets_frames_one_below_the_other(serve: Serve) -> None:
    """No screen is taken, no cursor moved, nothing but ASCII."""
    serve(script)
    terminal = Terminal(TERM="dumb")
    terminal.shows("fell_back")
    terminal.process.send_signal(signal.SIGINT)

    assert terminal.ends() == 0
    assert "\x1b" not in terminal.shown
    assert terminal.shown.isascii()
