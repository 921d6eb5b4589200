"""Becomes torchrun, with a rank of ours in each of its processes: what the supervisor starts for more than one.

Rendezvous, ranks and restarts of the group are torchrun's (`--max-restarts` is `restart.max_restarts`); all that is
ours is its command line. This module is a program of its own, and no list of words in the supervisor, because the ranks
have to know their agent by its pid, which is that of this process: `exec` keeps it.

On one node the ranks find each other on the loopback interface; a host name that does not resolve, or resolves to
an address of another network, is then no matter. Several nodes meet at torchrun's rendezvous, whose store the leader
hosts, and talk on the interface that faces it. There each round of ranks gets a store of its own from torchrun, not
one for all rounds: nodes count their restarts differently, so they could not agree on which part of it is theirs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

_MONITOR_SECONDS = 0.1  # torchrun's own default; how soon it sees that a rank is gone
_WITHOUT_END = 1_000_000
"""Restarts of a group of several nodes: their leader's supervisor counts them, and sees when a checkpoint renews the budget."""


def command(given: argparse.Namespace, agent: int, supervisor: int) -> list[str]:
    """The words of torchrun for the ranks on this node."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", *_where(given)]
    restarts = given.max_restarts if given.nodes == 1 else _WITHOUT_END
    group = ["--nproc-per-node", str(given.processes), "--max-restarts", str(restarts)]
    worker = [
        "-m",
        "ampd.worker",
        "--link",
        given.link,
        "--agent",
        str(agent),
        "--supervisor",
        str(supervisor),
    ]
    worker += ["--follows"] if given.follows else []
    return [*torchrun, *group, "--monitor-interval", str(_MONITOR_SECONDS), *worker]


def _where(given: argparse.Namespace) -> list[str]:
    if given.nodes == 1:
        return ["--standalone", "--local-addr", "127.0.0.1"]
    meeting = ["--nnodes", str(given.nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", given.rendezvous]
    hosting = f"is_host={0 if given.follows else 1}"
    return [*meeting, "--rdzv-id", given.job, "--rdzv-conf", hosting, "--local-addr", given.address]


def main(words: Sequence[str] | None = None) -> None:
    """Become the agent."""
    given = arguments(words)
    interface = given.interface if given.nodes > 1 else "lo"
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    if given.nodes > 1:
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # as torchrun does; [device] threads is set by the rank itself
    agent = command(given, os.getpid(), os.getppid())
    os.execv(agent[0], agent)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """What the supervisor says."""
    parser = argparse.ArgumentParser(
        prog="python -m ampd.group", description="The ranks of a job on this node; started by `ampd start`."
    )
    parser.add_argument("--link", required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--max-restarts", type=int, required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--rendezvous", help="HOST:PORT where the nodes meet")
    parser.add_argument("--job", help="what tells this rendezvous from others there")
    parser.add_argument("--address", help="where the other nodes reach this one")
    parser.add_argument("--interface", default="", help="the network interface of that address")
    parser.add_argument("--follows", action="store_true", help="another node has rank 0")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
