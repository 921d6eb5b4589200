"""kill -9 of worker, supervisor or both at random moments, with live changes under way, in every precision.

However often a run of the digits is killed, it ends with the loss log and the weights of a run that was never
killed and had the same changes at the same windows (its journal is what the killed one left).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from ampd.core import protocol as p
from ampd.engine import checkpoint
from ampd.errors import CommandError
from tests.daemon.daemons import Daemon
from tests.story.jobs import DigitsJob, digits_job

NAME = "kills"
_WINDOWS = 240
_PATIENCE_SECONDS = 300.0  # float16 is emulated on most processors
_CHANGES = ({"dtype": "bfloat16"}, {"dtype": "float16"}, {"optim.lr": "1e-3"}, {"clip.max_norm": "0.5"})


def case(seed: int) -> None:
    """Kill a run a few times, let it end, and compare it with one that was never killed."""
    draw = random.Random(seed)
    dtype = draw.choice(["float32", "bfloat16", "float16"])
    with digits_job(windows=_WINDOWS) as job, digits_job(windows=_WINDOWS) as whole:
        for each in (job, whole):
            each.write(amp=f'dtype = "{dtype}"\ninit_scale = 1024.0', checkpoint="every_windows = 20")
        for _ in range(draw.randint(1, 3)):
            _disturb(job.start(), draw)
        last = job.start()
        assert last.ends(_PATIENCE_SECONDS) == 0, last.err.read_text()

        whole.directory.mkdir()
        shutil.copy(job.directory / "journal.jsonl", whole.directory)
        assert whole.start().ends(_PATIENCE_SECONDS) == 0
        assert whole.losses == job.losses, f"the loss logs differ (seed {seed})"
        assert _weights(whole) == _weights(job), f"the weights differ (seed {seed})"


def _disturb(daemon: Daemon, draw: random.Random) -> None:
    """Change something, wait a random while, and kill; returns when the supervisor is gone or has gone on."""
    with contextlib.suppress(CommandError, AssertionError):
        daemon.runs(draw.randint(1, 40))
        daemon.ask(p.Set(changes=draw.choice(_CHANGES)))
    time.sleep(draw.random())  # the point of the campaign: the moment is random
    victims = draw.choice([("worker",), ("supervisor",), ("worker", "supervisor")])
    if "worker" in victims:
        _kill_worker(daemon)
    if "supervisor" in victims:
        daemon.process.kill()
        daemon.process.wait()
    else:
        time.sleep(draw.random())
        daemon.process.kill()
        daemon.process.wait()


def _kill_worker(daemon: Daemon) -> None:
    started = daemon.said("worker.started")
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(int(started[-1]["pid"]), signal.SIGKILL)


def _weights(job: DigitsJob) -> dict[str, Any]:
    """Checksums of the last checkpoint's files."""
    newest = checkpoint.listed(Path(job.directory) / "checkpoints")[-1]
    return {name: entry.sha256 for name, entry in checkpoint.verify(newest).files.items()}
