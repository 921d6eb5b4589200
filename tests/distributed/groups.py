"""Starts a group of ranks under torchrun, as the daemon does, and waits for its end."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.tree import ROOT

_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")
_ENOUGH_SECONDS = 240


def run_ranks(count: int, module: str, *words: str) -> None:
    """Run a program in `count` ranks; fails with what they wrote where one of them does."""
    ran = subprocess.run(
        [*_TORCHRUN, "--nproc-per-node", str(count), "-m", module, *words],
        cwd=ROOT,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_ENOUGH_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
