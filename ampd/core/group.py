"""The section of the job file about processes that train together, and what follows from it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ampd.core.section import Section, fixed, live
from ampd.errors import ConfigError


class DistributedSection(Section, frozen=True, kw_only=True):
    processes: (
        Annotated[
            int,
            fixed(
                "Processes that train together on a node, by torchrun; auto: one for each GPU, 1 without. env: this "
                "daemon has one of those that torchrun or Slurm has started, as its environment says.",
                form='a number, "auto" or "env"',
                ge=1,
                le=1024,
            ),
        ]
        | Literal["auto", "env"]
    ) = 1
    nodes: Annotated[
        int,
        fixed(
            "Machines that train together; `ampd start` runs on each, with the same job file.", ge=1, le=1024
        ),
    ] = 1
    rendezvous: Annotated[
        str,
        fixed(
            "HOST:PORT where the nodes meet; the node that has this address leads. Needed with nodes, and only then.",
            form="HOST:PORT",
            pattern=r"^$|^(\[[^\s\]]+\]|[^\s\[\]:/]+):\d{1,5}$",
        ),
    ] = ""
    node: (
        Annotated[
            int,
            fixed(
                "Number of this node, 0 leads; for where the rendezvous' address does not tell.",
                ge=0,
                le=1023,
            ),
        ]
        | None
    ) = None
    strategy: Annotated[
        Literal["ddp", "fsdp2"],
        fixed("ddp: each process has all weights. fsdp2: each keeps and updates its rows of every weight."),
    ] = "ddp"
    check_every_windows: Annotated[
        int,
        live("Windows between comparisons of the weights of all ranks; 0 for none.", unit="windows", ge=0),
    ] = 1000
    on_divergence: Annotated[
        Literal["pause", "abort", "warn"],
        live("Where a rank has other weights than the rest: hold, end the job as failed, or only say so."),
    ] = "pause"

    @property
    def is_group(self) -> bool:
        """More than one process may train."""
        return self.processes != 1 or self.nodes > 1

    @property
    def has_agent(self) -> bool:
        """A torchrun of ours starts the ranks, and starts them again when one is lost."""
        return self.is_group and self.processes != "env"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a daemon stands among those of its job. In a job of one node it leads, and `node` is empty."""

    host: str = ""
    """What this machine calls itself."""
    node: str = ""
    """Unlike that of every other node of the job, and no path."""
    leads: bool = True
    address: str = ""
    """Where the other nodes reach this one."""
    interface: str = ""
    """The network interface that has the address; empty where it is not known."""
    seat: int = 0
    """Which of the daemons of this job on this machine it is."""
    environment: dict[str, str] = {}
    """What its worker has to know to join the processes that somebody else has started."""


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """The node that has rank 0: it takes changes, saves, and has the journal of the job."""

    host: str
    endpoint: str = ""
    """Where it takes commands over TCP; empty where it does not."""


def standing(node: str, leader: Leader | None) -> str:
    """Which node of its job one is, in words, and where changes are made; empty in a job of one node."""
    if not node:
        return ""
    if leader is None:
        return f"{node}, leads"
    return f"{node}, follows {leader.host}" + (f" ({leader.endpoint})" if leader.endpoint else "")


def check(section: DistributedSection) -> None:
    """Several nodes need a place to meet, and one node has nobody to meet; raises ConfigError."""
    if section.nodes > 1 and not section.rendezvous:
        raise ConfigError(
            f"distributed.nodes = {section.nodes} needs distributed.rendezvous", field="distributed.rendezvous",
            hint='HOST:PORT of the node that leads, for example rendezvous = "gpu1:29400"',
        )  # fmt: skip
    if section.rendezvous and not 0 < int(section.rendezvous.rpartition(":")[2]) < 1 << 16:
        raise ConfigError(
            f"distributed.rendezvous = {section.rendezvous!r}: expected a port from 1 to 65535",
            field="distributed.rendezvous", hint="torchrun's own choice is 29400",
        )  # fmt: skip
    if section.nodes > 1 and section.processes == "env":
        raise ConfigError(
            'distributed.processes = "env" joins processes that are there, and distributed.nodes starts some',
            field="distributed.nodes", hint="leave nodes and rendezvous out: the environment says who trains together",
        )  # fmt: skip
    for key in ("rendezvous", "node") if section.nodes == 1 else ():
        if getattr(section, key) not in ("", None):
            raise ConfigError(
                f"distributed.{key} is for several nodes, and the job has one", field=f"distributed.{key}",
                hint="leave it out, or set distributed.nodes",
            )  # fmt: skip
    if section.node is not None and section.node >= section.nodes:
        raise ConfigError(
            f"distributed.node = {section.node}: a job of {section.nodes} nodes has 0 to {section.nodes - 1}",
            field="distributed.node", hint="the node with number 0 leads",
        )  # fmt: skip
