"""Job files that are damaged in a thousand ways are read again by a running daemon: each is refused, and changes nothing.

Mutants that happen to be a whole valid job file are not sent: what those change is what they say.
"""

from __future__ import annotations

import random
import signal
import tempfile
from pathlib import Path
from typing import Any

from ampd import preflight
from ampd.core import protocol as p
from ampd.errors import AmpdError
from tests.daemon.daemons import Daemon, Job, until

NAME = "reloads"
MUTANTS = 100
_PIECES = (
    "[", "]", '"', "=", "\n[amp]\n", "\nlr = ", "nan", "-1", "1e999", "''", "\x00", "\u2028", "true", "{}", "windows = 0\n",
    'dtype = "float64"\n', "[watchdog]\nfactor = 0\n", "[optim]\nlr = -1\n", "[job]\n", "unknown = 1\n", "9" * 400,
)  # fmt: skip


def case(seed: int, mutants: int = MUTANTS) -> None:
    """Reload so many damaged files; revision, every value and the training stay as they were."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        job = Job(Path(home))
        job.write(optim="lr = 0.01", amp='dtype = "float32"', log='level = "info"')
        good = job.file.read_bytes()
        try:
            daemon = job.start(worker="--window-seconds 0.02")
            daemon.runs()
            before = _held(daemon)
            for number in range(mutants):
                _reload(job, daemon, _damaged(job, good, draw), number)
                if number % 25 == 0:
                    assert _held(daemon) == before
            assert _held(daemon) == before, "a refused file has changed something"
            daemon.runs(daemon.status()["window"] + 1)
            job.file.write_bytes(good)
        finally:
            job.clean()


def _reload(job: Job, daemon: Daemon, content: bytes, number: int) -> None:
    """One SIGHUP with this file; refused, with a sentence."""
    job.file.write_bytes(content)
    last = daemon.ask(p.Events(most=1)).result["last"]
    daemon.signal(signal.SIGHUP)
    news: list[dict[str, Any]] = []

    def is_answered() -> bool:
        told = daemon.ask(p.Events(since=last)).result["events"]
        news[:] = [event for event in told if event["name"].startswith("config.reload")]
        return bool(news)

    until("an answer to SIGHUP", is_answered)
    assert [event["name"] for event in news] == ["config.reload_refused"], (number, content, news)
    assert news[0]["fields"]["error"]


def _held(daemon: Daemon) -> tuple[int, dict[str, Any]]:
    done = daemon.ask(p.Get())
    return done.revision, done.result["values"]


def _damaged(job: Job, good: bytes, draw: random.Random) -> bytes:
    """A file that is refused before anything of it is looked at, or after all of it was."""
    while True:
        content = _mutant(good, draw)
        job.file.write_bytes(content)
        try:
            preflight.plan(preflight.read(job.file))
        except AmpdError:
            return content


def _mutant(good: bytes, draw: random.Random) -> bytes:
    text = bytearray(good)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(text))
        match draw.randrange(5):
            case 0:
                text[at] = draw.randrange(256)
            case 1:
                del text[at:]
                text += b" "
            case 2:
                del text[at : at + draw.randint(1, 20)]
                text += b"\n"
            case 3:
                text[at:at] = draw.choice(_PIECES).encode()
            case _:
                lines = text.splitlines(keepends=True)
                text += draw.choice(lines)
    return bytes(text)
