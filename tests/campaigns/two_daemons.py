"""Two daemons started on one job at the same moment: exactly one runs, and the other names it and leaves.

Also where a killed daemon has left its socket, lock and worker behind: what is stale never stops a start, and what is
alive is never pushed aside.
"""

from __future__ import annotations

import random
import signal
import statistics
import tempfile
import time
from pathlib import Path

from ampd.errors import ExitCode
from tests.daemon.daemons import Daemon, Job, until

NAME = "two-daemons"
RACES = 2


def case(seed: int, races: int = RACES) -> None:
    """Race so many times, on what the winner before left; many races are summed up."""
    draw, lasted = random.Random(seed), list[float]()
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        job = Job(Path(home))
        job.write_for_kills()
        try:
            for _ in range(races):
                winner = _race(job, lasted)
                winner.signal(draw.choice([signal.SIGKILL, signal.SIGTERM]))
                winner.ends()
        finally:
            job.clean()
    if races > RACES:
        print(
            f"{NAME}: {races} races; the loser had left after {statistics.median(lasted):.2f} s (median),"
            f" {max(lasted):.2f} s (longest), its start included"
        )


def _race(job: Job, lasted: list[float]) -> Daemon:
    """The one that runs, after the other has left; how long that took is added to `lasted`."""
    begin = time.monotonic()
    rivals = [job.start(), job.start()]
    until("one of the two leaves", lambda: any(rival.process.poll() is not None for rival in rivals))
    lasted.append(time.monotonic() - begin)
    loser = next(rival for rival in rivals if rival.process.poll() is not None)
    winner = next(rival for rival in rivals if rival is not loser)
    assert loser.ends() == ExitCode.CONFLICT, loser.err.read_text()
    assert str(winner.pid) in loser.err.read_text(), f"{winner.pid} is not named: {loser.err.read_text()}"
    winner.runs()
    assert winner.status()["pid"] == winner.pid, "the socket is the loser's"
    return winner
