"""Groups of ranks without torchrun: one process that has loaded torch, and forks of it.

    python -m tests.distributed.forks MODULE:FUNCTION SEED DIRECTORY WORLD...

torchrun starts every rank afresh, and each takes seconds of CPU to load torch. What is tested here is what ranks do
together, so they are forked when torch is there: before it has begun a thread. `test_story` has torchrun.
"""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch.distributed as dist

from tests.tree import ROOT

_ENOUGH_SECONDS = 240.0
Play = Callable[[int, Path], None]


def fork(
    play: Play, seed: int, directory: Path, worlds: Sequence[int], seconds: float = _ENOUGH_SECONDS
) -> None:
    """Have `play(seed, directory)` run in every rank of a group of each size; raises where one fails, or takes too long."""
    words = [f"{play.__module__}:{play.__name__}", str(seed), str(directory), *map(str, worlds)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.distributed.forks", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=seconds,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def main(words: Sequence[str]) -> int:
    """Fork the ranks of one group after the other, and wait for them."""
    module, _colon, name = words[0].partition(":")
    play: Play = getattr(importlib.import_module(module), name)
    seed, directory = int(words[1]), Path(words[2])
    gc.freeze()  # what is loaded stays: each collection would go through all of torch again
    return max(_group(play, seed, directory, world) for world in map(int, words[3:]))


def _group(play: Play, seed: int, directory: Path, world: int) -> int:
    pids = [_rank(play, seed, directory, rank, world) for rank in range(world)]
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in pids)


def _rank(play: Play, seed: int, directory: Path, rank: int, world: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        store = dist.FileStore(str(directory / f"store-{world}"), world)  # type: ignore[attr-defined]  # torch's own gap
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
        play(seed, directory)
        dist.destroy_process_group()
        code = 0
    except BaseException:  # noqa: BLE001  # the top of a process that must not return into its parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
