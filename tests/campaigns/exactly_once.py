"""Requests that are sent one to five times while daemons are killed: each is carried out once, and none is lost.

Every request sets a value of its own, so the history tells how often it was carried out. The client gives up early,
late or not at all, as a killed `ampctl` would; in the end it asks once more under the same id, and must be told what
it was told before.
"""

from __future__ import annotations

import random
import signal
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

from ampd.control.client import Client, new_request_id
from ampd.core import protocol as p
from ampd.errors import CommandError
from tests.daemon.daemons import PATIENCE_SECONDS, Daemon, Job, until

NAME = "exactly-once"
REQUESTS = 25
KEY = "checkpoint.every_windows"
_UNANSWERED = {"NOT_RUNNING", "TIMED_OUT", "UNREACHABLE"}


def case(seed: int, count: int = REQUESTS) -> None:
    """Send `count` requests through kills of the daemon; every one of them is in the history exactly once."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        job = Job(Path(home))
        job.write_for_kills()
        try:
            _Campaign(job, draw).run(count)
        finally:
            job.clean()


class _Campaign:
    """One job and a client that is never sure."""

    def __init__(self, job: Job, draw: random.Random) -> None:
        self._job = job
        self._draw = draw
        self._endpoint = f"ipc://{job.home / 'rt' / 'toy' / 'control.sock'}"
        self._daemon: Daemon = job.start()
        self._told: dict[str, p.Done] = {}

    def run(self, count: int) -> None:
        """Ask for every value, then look at what became of them."""
        self._daemon.runs()
        wanted = {new_request_id(): number for number in range(1000, 1000 + count)}
        for request_id, value in wanted.items():
            for _ in range(self._draw.randint(1, 5)):
                if self._draw.random() < 0.08:
                    self._kill()
                self._try(request_id, value)
        for request_id, value in wanted.items():
            until(f"an answer to {request_id}", partial(self._try, request_id, value, PATIENCE_SECONDS))
        self._check(set(wanted.values()))

    def _kill(self) -> None:
        self._daemon.signal(signal.SIGKILL)
        self._daemon.ends()
        self._daemon = self._job.start()
        if self._draw.random() < 0.8:  # else it may be killed again while it starts
            self._daemon.runs()

    def _try(self, request_id: str, value: int, patience: float | None = None) -> bool:
        """Ask once, with as much patience as there is; whether there was an answer."""
        command = p.Set(changes={KEY: str(value)})
        seconds = patience or self._draw.choice([0.002, 0.01, 0.05, 2.0])
        try:
            done = Client(self._endpoint).ask(command, seconds, request_id=request_id)
        except CommandError as error:
            assert error.code in _UNANSWERED, error
            return False
        before = self._told.setdefault(request_id, done)
        assert (before.revision, before.window, before.result) == (done.revision, done.window, done.result)
        return True

    def _check(self, wanted: set[int]) -> None:
        revisions = self._daemon.ask(p.History()).result["revisions"]
        made = Counter(change["new"] for r in revisions for change in r["changes"] if change["key"] == KEY)
        assert set(made) == wanted, f"lost: {wanted - set(made)}, from nowhere: {set(made) - wanted}"
        assert set(made.values()) == {1}, f"carried out twice: {[v for v, n in made.items() if n > 1]}"
        assert [r["revision"] for r in revisions] == list(range(2, len(revisions) + 2))
        by_number = {r["revision"]: r for r in revisions}
        for done in self._told.values():
            assert by_number[done.revision]["changes"] == done.result["changes"]
