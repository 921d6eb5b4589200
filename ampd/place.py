"""Which node of its job a machine is, and how the others reach it; found before anything is taken or started.

The node that has the rendezvous' address leads. It has to be known before there is a group, since the leader has the
journal and the directory of the job; and it has to be that one, because torchrun's store lives there: a job cannot
outlive that machine anyway. torchrun itself orders nodes by address, which nobody would guess.

With `processes = "env"` none of this is ours to say: whoever started the processes has numbered them, and each of them is
a node with one rank.

Whether an address is ours is asked of the kernel, by binding to it: that knows every interface, where a comparison of
names knows one. Under what address the others reach us is asked of it too: the one that it would send from to the
rendezvous. Neither sends a packet.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ampd.core.group import DistributedSection, Place
from ampd.errors import ConfigError

_RESOLVES_SECONDS = 60.0
"""A name may be younger than the machines that look for it: a cluster announces it when its first node is up."""
_LOOK_SECONDS = 0.5
_SIOCGIFADDR = 0x8915  # netdevice(7): the IPv4 address of an interface
_IPV6_ADDRESSES = Path("/proc/net/if_inet6")

Address = tuple[socket.AddressFamily, Any]


_NAMES = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
"""How torchrun and Slurm call a process's number, how many there are, and its number on its machine."""


def find(
    section: DistributedSection, say: Callable[[str], None], environment: Mapping[str, str] = os.environ
) -> Place:
    """Where we stand; waits for the rendezvous' name to resolve. Raises ConfigError where that cannot be known."""
    host = socket.gethostname()
    if section.processes == "env":
        return _launched(host, environment, say)
    if section.nodes == 1:
        return Place(host=host)
    met = _resolved(section.rendezvous, say)
    leads = section.node == 0 if section.node is not None else any(map(_is_ours, met))
    address = _facing(met[0], section.rendezvous)
    name = host if section.node is None else f"{host}-{section.node}"
    return Place(host=host, node=name, leads=leads, address=address, interface=_interface_of(address))


def _launched(host: str, environment: Mapping[str, str], say: Callable[[str], None]) -> Place:
    """The place that torchrun or Slurm has given to this process."""
    rank, world, seat = _numbers(environment)
    if world == 1:
        return Place(host=host)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if missing:
        raise _unlaunched(
            f"{rank} of {world} processes does not know where to meet the others: {' and '.join(missing)} not set",
            'in a Slurm script: export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) MASTER_PORT=29400',
        )
    master = f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
    interface = _interface_of(_facing(_resolved(master, say)[0], master))
    told = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(seat)}
    if interface and "GLOO_SOCKET_IFNAME" not in environment:
        told["GLOO_SOCKET_IFNAME"] = interface
    return Place(
        host=host, node=f"rank-{rank}", leads=rank == 0, interface=interface, seat=seat, environment=told
    )


def _numbers(environment: Mapping[str, str]) -> tuple[int, int, int]:
    for rank, world, seat in _NAMES:
        if rank in environment and world in environment:
            numbers = [environment[rank], environment[world], environment.get(seat, "0")]
            if not all(number.isdigit() for number in numbers) or int(numbers[0]) >= int(numbers[1]):
                raise _unlaunched(
                    f"{rank}={numbers[0]}, {world}={numbers[1]}, {seat}={numbers[2]}: expected numbers, "
                    f"{rank} below {world}"
                )
            return int(numbers[0]), int(numbers[1]), int(numbers[2])
    raise _unlaunched("neither RANK and WORLD_SIZE are set, nor SLURM_PROCID and SLURM_NTASKS")


def _resolved(rendezvous: str, say: Callable[[str], None]) -> list[Address]:
    host, _colon, port = rendezvous.rpartition(":")
    deadline, is_told = time.monotonic() + _RESOLVES_SECONDS, False
    while True:
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if time.monotonic() > deadline:
                raise _refused(rendezvous, f"{host} does not resolve: {error.strerror}") from None
        else:
            return [(family, address) for family, _type, _protocol, _name, address in found]
        if not is_told:
            say(f"waiting up to {_RESOLVES_SECONDS:g} s for {host} to resolve")
            is_told = True
        time.sleep(_LOOK_SECONDS)


def _is_ours(met: Address) -> bool:
    family, address = met
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address[0], 0))
        except OSError:
            return False
    return True


def _facing(met: Address, rendezvous: str) -> str:
    family, address = met
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)
        except OSError as error:
            raise _refused(rendezvous, f"no way leads to {address[0]}: {error.strerror}") from None
        return str(probe.getsockname()[0])


def _interface_of(address: str) -> str:
    for _index, name in socket.if_nameindex():
        if address in _addresses_of(name):
            return name
    return ""


def _addresses_of(interface: str) -> list[str]:
    lines = _IPV6_ADDRESSES.read_text().splitlines() if _IPV6_ADDRESSES.exists() else []
    fields = [line.split() for line in lines]
    found = [
        socket.inet_ntop(socket.AF_INET6, bytes.fromhex(each[0])) for each in fields if each[-1] == interface
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            answer = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:  # it has none
            return found
    return [socket.inet_ntop(socket.AF_INET, answer[20:24]), *found]


def _refused(rendezvous: str, reason: str) -> ConfigError:
    return ConfigError(
        f"distributed: the nodes cannot meet at {rendezvous!r}: {reason}",
        field="distributed.rendezvous", hint="give the name or address of the node that is to lead, as all nodes know it",
    )  # fmt: skip


def _unlaunched(reason: str, hint: str = "") -> ConfigError:
    return ConfigError(
        f'distributed.processes = "env": {reason}',
        field="distributed.processes", hint=hint or "start `ampd start` by torchrun or srun, or set a number of processes",
    )  # fmt: skip
