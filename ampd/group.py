"""Becomes torchrun, with a rank of ours in each of its processes: what the supervisor starts for more than one.

Rendezvous, ranks and restarts of the group are torchrun's (`--max-restarts` is `restart.max_restarts`); all that is
ours is its command line. This module is a program of its own, and no list of words in the supervisor, because the ranks
have to know their agent by its pid, which is that of this process: `exec` keeps it.

On one node the ranks find each other on the loopback interface; a host name that does not resolve, or resolves to
an address of another network, is then no matter.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

_MONITOR_SECONDS = 0.1  # torchrun's own default; how soon it sees that a rank is gone


def command(processes: int, max_restarts: int, link: str, agent: int, supervisor: int) -> list[str]:
    """The words of torchrun for `processes` ranks on this node."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    group = ["--nproc-per-node", str(processes), "--max-restarts", str(max_restarts)]
    worker = ["-m", "ampd.worker", "--link", link, "--agent", str(agent), "--supervisor", str(supervisor)]
    return [*torchrun, *group, "--monitor-interval", str(_MONITOR_SECONDS), *worker]


def main(words: Sequence[str] | None = None) -> None:
    """Become the agent."""
    given = _arguments(words)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # as torchrun does; [device] threads is set by the rank itself
    agent = command(given.processes, given.max_restarts, given.link, os.getpid(), os.getppid())
    os.execv(agent[0], agent)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ampd.group", description="The ranks of a job; started by `ampd start`."
    )
    parser.add_argument("--link", required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--max-restarts", type=int, required=True)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
