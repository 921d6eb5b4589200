"""Signals at random moments, in random order, several at once: the daemon ends as it says, and the next one goes on.

A case starts a daemon that loads, trains, saves, pauses or recovers, waits until it has the job (before, the signals are
the interpreter's), sends up to four of SIGTERM, SIGINT and SIGHUP
with random pauses between none and a tenth of a second, then makes sure of a SIGTERM, and starts the job again.
"""

from __future__ import annotations

import contextlib
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from ampd.core import protocol as p
from ampd.errors import CommandError
from tests.daemon.daemons import Daemon, Job, until

NAME = "signals"
_CRASHES = "--crash-at 3"
_WORKERS = ("", "--save-seconds 0.3", _CRASHES, "--hang-loading", "--window-seconds 0.05")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CODES = {0, 130, -signal.SIGTERM}
"""Stopped; interrupted before it saved; ended before there was anything to stop."""
_FAILED = 1  # a worker that crashes may do so while it stops, and then has not saved


def case(seed: int, daemons: int = 1) -> None:
    """Disturb so many, and start the next on what each left; many are summed up."""
    draw, met, begin = random.Random(seed), Counter[str](), time.monotonic()
    for _ in range(daemons):
        met.update(_one(draw))
    if daemons > 1:
        seconds = time.monotonic() - begin
        print(f"{NAME}: {daemons} daemons in {seconds:.0f} s; signals by the state of the job: {dict(met)}")


def _one(draw: random.Random) -> list[str]:
    """A daemon from its start to its end, and the next; the states in which each signal met it."""
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        job = Job(Path(home))
        job.write(restart="backoff_seconds = 0.2\nsave_budget_seconds = 20")
        try:
            worker = draw.choice(_WORKERS)
            daemon = job.start(worker=worker)
            until("the daemon has the job", (job.directory / "lock").exists)
            sent, states = _disturb(daemon, draw)
            code = daemon.ends()
            assert code in _CODES | ({_FAILED} if worker == _CRASHES else set()), (
                f"exit code {code} after {sent}: {daemon.err.read_text()}"
            )
            assert "Traceback" not in daemon.err.read_text(), daemon.err.read_text()
            after = job.start()
            after.runs()
            after.signal(signal.SIGTERM)
            assert after.ends() == 0
            return states
        finally:
            job.clean()


def _disturb(daemon: Daemon, draw: random.Random) -> tuple[list[str], list[str]]:
    """Send signals from a random moment on; which they were, and in which state each met the job."""
    time.sleep(draw.uniform(0.0, 1.5))  # the point of the campaign: the moment is random
    if draw.random() < 0.3:
        with contextlib.suppress(CommandError, AssertionError):
            daemon.ask(p.Pause() if draw.random() < 0.5 else p.Checkpoint())
    signals = [draw.choice(_SIGNALS) for _ in range(draw.randint(1, 4))]
    states = []
    for number in [*signals, signal.SIGTERM]:
        states.append(_state(daemon))
        daemon.signal(number)
        time.sleep(draw.choice([0.0, 0.01, 0.1]))
    return [number.name for number in signals], states


def _state(daemon: Daemon) -> str:
    moves = daemon.said("lifecycle.changed")
    return str(moves[-1]["to"]) if moves else "starting"
