"""kill -9 of ranks and of torchruns, on either of two nodes, at random moments, with changes asked for on both.

However often a job of two nodes loses a part of itself, it ends with the loss log and the weights of two ranks on one
node that nobody disturbed, and that had the same changes at the same windows; and what was asked of the node that
follows was refused each time, by the name of the one that leads.
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
from tests.distributed.nodes import (
    PATIENCE_SECONDS,
    Nodes,
    all_are_ready,
    all_end,
    nodes,
    rank_of,
    refusal_of,
)
from tests.story.jobs import DigitsJob, digits_job

NAME = "nodes"
KILLS = 2
_WINDOWS_BETWEEN = 120
"""More than two nodes run in the time until the next kill."""
_RESTART = "backoff_seconds = 0.01\nmax_restarts = 1000"
_TWO_RANKS = "processes = 2"
_CHANGES = ({"dtype": "bfloat16"}, {"dtype": "float32"}, {"optim.lr": "1e-3"}, {"clip.max_norm": "0.5"})


def case(seed: int, kills: int = KILLS) -> None:
    """Kill so often, let it end, and compare."""
    draw, lasted = random.Random(seed), list[float]()
    windows = _WINDOWS_BETWEEN * (kills + 1)
    with nodes(windows=windows) as job, digits_job(windows=windows) as whole:
        job.write(restart=_RESTART)
        daemons = job.start()
        all_are_ready(daemons)
        for _ in range(kills):
            _change(daemons, draw)
            time.sleep(draw.random())  # the point of the campaign: the moment is random
            lasted.append(_kill(daemons, draw))
        assert all_end(daemons) == [0, 0], job.jobs[0].daemons[0].err.read_text()
        _compare(job, whole)
    print(
        f"{NAME}: {kills} kills in {windows} windows, 0 lost or altered; both nodes ran again after"
        f" {sorted(lasted)[len(lasted) // 2]:.1f} s (median), {max(lasted):.1f} s (longest)"
    )


def _change(daemons: list[Daemon], draw: random.Random) -> None:
    """Something is changed where the job is led, and refused where it is not."""
    leads, follows = daemons
    wanted = p.Set(changes=draw.choice(_CHANGES))
    refused = refusal_of(follows, wanted)
    assert refused.code == "NOT_LEADER" and follows.status()["leader"]["host"] in str(refused), refused
    with contextlib.suppress(CommandError):  # the job may just have ended
        leads.ask(wanted)


def _kill(daemons: list[Daemon], draw: random.Random) -> float:
    """Kill a rank or a torchrun of one of the nodes; returns after how many seconds both run again."""
    victim = draw.choice(daemons)
    ready = [len(daemon.said("worker.became_ready")) for daemon in daemons]
    pid = rank_of(victim) if draw.random() < 0.75 else int(victim.said("worker.started")[-1]["pid"])
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    for daemon, count in zip(daemons, ready, strict=True):
        all_are_ready([daemon], count + 1)
    return time.monotonic() - begin


def _compare(job: Nodes, whole: DigitsJob) -> None:
    whole.write(distributed=_TWO_RANKS, checkpoint="every_windows = 20")
    whole.directory.mkdir()
    shutil.copy(job.directory / "journal.jsonl", whole.directory)
    assert whole.start().ends(PATIENCE_SECONDS) == 0
    assert whole.losses == job.losses, "the loss logs differ"
    assert _weights(whole.directory) == _weights(job.directory), "the weights differ"


def _weights(directory: Path) -> dict[str, Any]:
    """Checksums of the last checkpoint's files."""
    newest = checkpoint.listed(directory / "checkpoints")[-1]
    return {name: entry.sha256 for name, entry in checkpoint.verify(newest).files.items()}
