"""`ampctl status --watch`: the status again and again, with the curves that a single answer cannot have.

It asks the daemon as any other client does, twice a second, and keeps what it saw itself: no second channel, nothing
in the daemon for its sake, and what is on the screen is what `ampctl status --json` says. A daemon that does not answer
for a while is shown as such and asked again; one that is gone ends the view with the exit code of any command.

The frame is drawn by `watch_frame`; here are the clock, the terminal and the way out. On a terminal the frame has the
screen to itself and the last one stays when it is over; elsewhere (a pipe, TERM=dumb) each frame is printed below the
one before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ampd.cli.ctl_call import Call
from ampd.cli.watch_frame import Frame, History, Signs, draw
from ampd.core.protocol import Done, Stats, Status
from ampd.errors import CommandError, ExitCode

INTERVAL_SECONDS = 0.5
ANSWER_SECONDS = 2.0
"""How long an answer may take before the view says that there is none."""

Show = Callable[[list[Text]], None]


def watch(call: Call, *, once: bool) -> None:
    """Show the job until Ctrl-C; with `once`, one frame. Raises CommandError where the daemon is gone."""
    console = Console(highlight=False)
    view = _View(call, console)
    view.ask()
    if once:
        _print(console, view.lines(height=0))
        return
    with contextlib.suppress(KeyboardInterrupt), _screen(console) as show:
        while True:
            show(view.lines(height=console.height if console.is_terminal else 0))
            time.sleep(INTERVAL_SECONDS)
            view.ask()


class _View:
    """What is known of the job: the last answers, and what was seen before."""

    def __init__(self, call: Call, console: Console) -> None:
        self._call = call
        self._console = console
        self._history = History()
        self._status: dict[str, Any] = {}
        self._stats: dict[str, Any] = {}
        self._silent_since = 0.0

    def ask(self) -> None:
        """Ask for both answers; one that does not come is noted once the daemon has answered before."""
        try:
            self._status = self._call.ask(Status(), seconds=ANSWER_SECONDS).result
            self._stats = self._ask_stats()
        except CommandError as error:
            if not self._status or error.exit_code not in (ExitCode.TIMED_OUT, ExitCode.UNREACHABLE):
                raise self._gone(error) from None
            self._silent_since = self._silent_since or time.time()
        else:
            self._silent_since = 0.0
            self._history.add(self._status, time.time())

    def lines(self, *, height: int) -> list[Text]:
        """The frame; `height` 0 is as high as it needs."""
        frame = Frame(
            status=self._status, stats=self._stats, history=self._history, now=time.time(),
            silent_since=self._silent_since,
        )  # fmt: skip
        return draw(frame, Signs.of(self._console), width=self._console.width, height=height)

    def _ask_stats(self) -> dict[str, Any]:
        """Empty before the first window, which is refused as not ready."""
        try:
            done: Done = self._call.ask(Stats(), seconds=ANSWER_SECONDS)
        except CommandError as error:
            if error.exit_code is ExitCode.REJECTED:
                return {}
            raise
        return done.result

    def _gone(self, error: CommandError) -> CommandError:
        if not self._status:
            return error
        seen = f"it was last seen {self._status['state']} at window {self._status['window']}"
        return CommandError(
            f"the daemon is gone; {seen}", code=error.code, exit_code=error.exit_code, hint=error.hint
        )


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[Show]:
    """How frames are shown; on the way out the last one is left on the terminal."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda lines: _print(console, [*lines, Text()])
        return
    last: list[Text] = []
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:

            def show(lines: list[Text]) -> None:
                last[:] = lines
                live.update(Group(*lines), refresh=True)

            yield show
    finally:
        _print(console, last)


def _print(console: Console, lines: list[Text]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)
