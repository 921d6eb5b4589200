"""Clients that count together with `--if-revision`: no increment is lost, whoever comes first.

Each client reads the value and the revision that it held at, and sets one more only if that revision still holds. Had
two of them been let through on one revision, one increment would be missing in the end.
"""

from __future__ import annotations

import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ampd.control.client import Client
from ampd.core import protocol as p
from ampd.errors import CommandError
from tests.daemon.daemons import PATIENCE_SECONDS, Job

NAME = "compare-and-set"
CLIENTS = 8
INCREMENTS = 20
KEY = "checkpoint.every_windows"


def case(seed: int, increments: int = INCREMENTS) -> None:
    """Let eight clients make so many increments each; the sum and the history must have all of them."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        job = Job(Path(home))
        try:
            daemon = job.start(worker=f"--window-seconds {draw.choice([0.0, 0.001, 0.01])}")
            daemon.runs()
            endpoint = f"ipc://{job.home / 'rt' / 'toy' / 'control.sock'}"
            before = _read(endpoint)[0]
            with ThreadPoolExecutor(CLIENTS) as pool:
                for done in [pool.submit(_count, endpoint, increments) for _ in range(CLIENTS)]:
                    done.result()
            assert _read(endpoint)[0] == before + CLIENTS * increments
            _check(daemon.ask(p.History()), before)
        finally:
            job.clean()


def _count(endpoint: str, increments: int) -> None:
    """Add one, so many times; again where somebody else was faster."""
    while increments:
        value, revision = _read(endpoint)
        command = p.Set(changes={KEY: str(value + 1)}, if_revision=revision)
        try:
            Client(endpoint).ask(command, PATIENCE_SECONDS)
        except CommandError as error:
            assert error.code == "CONFLICT", error
        else:
            increments -= 1


def _read(endpoint: str) -> tuple[int, int]:
    """The value, and the revision that it holds at."""
    done = Client(endpoint).ask(p.Get(keys=(KEY,)), PATIENCE_SECONDS)
    return done.result["values"][KEY], done.revision


def _check(done: p.Done, before: int) -> None:
    moves = [(c["old"], c["new"]) for r in done.result["revisions"] for c in r["changes"]]
    assert moves == [(value, value + 1) for value in range(before, before + len(moves))], moves
