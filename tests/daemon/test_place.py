"""Which node leads, and how the others reach it: asked of the kernel, before anything is started."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from ampd import place
from ampd.core.group import DistributedSection, Place
from ampd.errors import ConfigError

HOST = socket.gethostname()
ELSEWHERE = "192.0.2.1"  # RFC 5737: nobody's


def met(rendezvous: str, node: int | None = None) -> DistributedSection:
    """A job of two nodes."""
    return DistributedSection(nodes=2, rendezvous=rendezvous, node=node)


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way to everywhere, whatever network the machine has."""
    monkeypatch.setattr(place, "_facing", lambda _met, _rendezvous: "127.0.0.1")


def test_a_job_of_one_node_looks_at_no_network() -> None:
    """It leads, and has no name among others."""
    assert place.find(DistributedSection(), print) == Place(host=HOST)


def test_the_node_that_has_the_address_leads() -> None:
    """Whatever it is called there; and is reached where the rendezvous is."""
    found = place.find(met("127.0.0.1:29400"), print)

    assert (found.leads, found.node, found.address, found.interface) == (True, HOST, "127.0.0.1", "lo")


@pytest.mark.usefixtures("faces")
def test_any_other_node_follows() -> None:
    """An address that no interface here has."""
    assert not place.find(met(f"{ELSEWHERE}:29400"), print).leads


@pytest.mark.usefixtures("faces")
@pytest.mark.parametrize(("node", "leads"), [(0, True), (1, False)])
@pytest.mark.parametrize("rendezvous", ["127.0.0.1:29400", f"{ELSEWHERE}:29400"])
def test_a_number_decides_where_it_is_given(rendezvous: str, node: int, leads: bool) -> None:
    """For addresses that tell nothing: a service's, or two nodes on one machine, which then have two names."""
    found = place.find(met(rendezvous, node), print)

    assert (found.leads, found.node) == (leads, f"{HOST}-{node}")


def test_ipv6_is_an_address_like_any_other() -> None:
    """Where the machine has it."""
    if not any(line.split()[-1] == "lo" for line in Path("/proc/net/if_inet6").read_text().splitlines()):
        pytest.skip("no IPv6 here")
    found = place.find(met("[::1]:29400"), print)

    assert (found.leads, found.address, found.interface) == (True, "::1", "lo")


def test_a_name_that_never_resolves_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while in which it may begin to, and which is told."""
    monkeypatch.setattr(place, "_RESOLVES_SECONDS", 0.0)
    monkeypatch.setattr(place, "_LOOK_SECONDS", 0.0)
    said: list[str] = []

    with pytest.raises(
        ConfigError, match=re.escape("'nobody.invalid:29400': nobody.invalid does not resolve")
    ):
        place.find(met("nobody.invalid:29400"), said.append)

    assert len(said) <= 1


def test_a_name_may_resolve_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster announces it when its first node is up."""
    answers = iter([socket.gaierror(-2, "unknown"), socket.gaierror(-2, "unknown"), None])
    resolve = socket.getaddrinfo

    def later(*asked: object, **how: object) -> object:
        if (error := next(answers)) is not None:
            raise error
        return resolve("127.0.0.1", 29400, type=socket.SOCK_STREAM)

    monkeypatch.setattr(socket, "getaddrinfo", later)
    monkeypatch.setattr(place, "_LOOK_SECONDS", 0.0)
    said: list[str] = []

    assert place.find(met("late.example:29400"), said.append).leads
    assert said == ["waiting up to 60 s for late.example to resolve"]


JOIN = DistributedSection(processes="env")
MASTER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **MASTER}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", **MASTER}


@pytest.mark.parametrize(
    "environment", [TORCHRUN, SLURM, {**SLURM, **TORCHRUN}], ids=["torchrun", "slurm", "both"]
)
def test_the_environment_says_which_rank_a_daemon_has(environment: dict[str, str]) -> None:
    """And what its worker is told of it is in torch's words, whoever said it."""
    found = place.find(JOIN, print, environment)

    assert (found.node, found.leads, found.seat) == ("rank-3", False, 1)
    assert found.environment == {
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip


def test_rank_0_of_the_environment_leads() -> None:
    """Its store is where the others meet."""
    assert place.find(JOIN, print, TORCHRUN | {"RANK": "0"}).leads


def test_the_one_process_of_an_environment_is_alone() -> None:
    """It needs nobody to meet."""
    assert place.find(JOIN, print, {"RANK": "0", "WORLD_SIZE": "1"}) == Place(host=HOST)


def test_an_interface_that_is_chosen_outside_stays() -> None:
    """What the operator has set is not ours to change."""
    found = place.find(JOIN, print, TORCHRUN | {"GLOO_SOCKET_IFNAME": "ib0"})

    assert "GLOO_SOCKET_IFNAME" not in found.environment


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "neither RANK and WORLD_SIZE are set, nor SLURM_PROCID and SLURM_NTASKS"),
        ({"RANK": "1"}, "neither RANK and WORLD_SIZE"),
        (
            TORCHRUN | {"RANK": "4"},
            "RANK=4, WORLD_SIZE=4, LOCAL_RANK=1: expected numbers, RANK below WORLD_SIZE",
        ),
        (TORCHRUN | {"RANK": "one"}, "RANK=one"),
        (
            SLURM | {"MASTER_ADDR": ""},
            "3 of 4 processes does not know where to meet the others: MASTER_ADDR not set",
        ),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT not set"),
    ],
)
def test_an_environment_that_names_no_group_is_refused(environment: dict[str, str], message: str) -> None:
    """With what is missing, before anything is started."""
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        place.find(JOIN, print, environment)

    assert caught.value.field == "distributed.processes"
    assert caught.value.hint
