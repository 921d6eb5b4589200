"""Roles by operations, the whole matrix, over both ways in: every operation of the protocol, and no wrong grant.

Both axes are read off the protocol, so that an operation that is added is in here by itself. Over TCP the roles are those
of real keys; over the unix socket the kernel knows two of them only (the owner and the group), so the third is put in
place of what it says. Real processes of another user ask for everything too, where the test runs as root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import pytest

from ampd.control import zap
from ampd.core import protocol
from ampd.core.protocol import ROLE_OF, Code, Done, Refusal, Role
from tests.control.keyed import Keyed, keyed
from tests.control.served import Dealer, Served

ID = "0190-abcdef"
NEEDED = {"changes": {"a": "1"}, "name": "ultra", "fault": "overflow"}
"""Values for fields that have no default; a new one is missed here as BAD_VALUE."""
_AS_NOBODY = """
import os, sys
from ampd.control import codec
from ampd.control.client import Client
from ampd.errors import CommandError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for line in sys.stdin.buffer:
    try:
        Client(sys.argv[1]).ask(codec.decode_request(line.strip()).command, 30)
    except CommandError as error:
        print(error.code, int(error.exit_code), flush=True)
    else:
        print("done", flush=True)
"""
Doors = dict[tuple[str, Role], tuple[Served, Dealer]]


@pytest.fixture(scope="module")
def keys() -> Iterator[Keyed]:
    with tempfile.TemporaryDirectory(prefix="ampd-") as root:
        yield keyed(Path(root) / "keys")


@pytest.fixture(scope="module")
def doors(keys: Keyed) -> Iterator[Doors]:
    """A connection in each role by each way."""
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ampd-")))
        remote = opened.enter_context(Served(home / "tcp", gate=keys.gate))
        made: Doors = {}
        for role in Role:
            dealer = Dealer(remote.remote, credentials=keys.credentials(role))
            made["tcp", role] = remote, opened.enter_context(dealer)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(zap, "role_of", lambda _uid, _gid, role=role, **_: role)
                local = opened.enter_context(Served(home / role.name))
            made["ipc", role] = local, opened.enter_context(Dealer(local.endpoint))
        yield made


def frame(command: type[protocol.Command]) -> bytes:
    """A request of this kind, with what it must have."""
    given = {name: NEEDED[name] for name in command.__struct_fields__ if name in NEEDED}
    operation = {"op": command.__struct_config__.tag, **given}
    return json.dumps({"v": protocol.VERSION, "id": ID, "command": operation}).encode()


def test_every_operation_needs_a_role() -> None:
    """None can be asked for that the table has forgotten."""
    assert set(ROLE_OF) == set(get_args(protocol.AnyCommand))


@pytest.mark.parametrize("command", get_args(protocol.AnyCommand))
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("way", ["ipc", "tcp"])
def test_a_role_may_what_it_may(way: str, role: Role, command: type[protocol.Command], doors: Doors) -> None:
    """Who has the role is answered; who has less is told FORBIDDEN with both roles, and no handler hears of it."""
    served, dealer = doors[way, role]

    reply = dealer.ask(frame(command))

    heard = [] if served.requests.empty() else [served.requests.get()]
    assert served.requests.empty()
    if role >= ROLE_OF[command]:
        assert isinstance(reply, Done)
        assert [(peer.role, type(request.command)) for peer, request in heard] == [(role, command)]
    else:
        assert isinstance(reply, Refusal) and (reply.code, reply.id) == (Code.FORBIDDEN, ID)
        assert f"the role {role.name.lower()}; this needs {ROLE_OF[command].name.lower()}" in reply.message
        assert heard == []


def as_nobody(endpoint: str) -> dict[str, str]:
    """What a process of the user nobody gets for each operation."""
    commands = get_args(protocol.AnyCommand)
    ended = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, endpoint], input=b"\n".join(map(frame, commands)) + b"\n",
        capture_output=True, check=True, timeout=110,
    )  # fmt: skip
    operations = (str(command.__struct_config__.tag) for command in commands)
    return dict(zip(operations, ended.stdout.decode().splitlines(), strict=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
@pytest.mark.parametrize("group", ["", "nogroup"], ids=["stranger", "member"])
def test_another_user_may_what_its_role_may(group: str, directory: Path) -> None:
    """By the kernel's word on a real process: a stranger nothing, though the files are open to all; a member may look."""
    directory.parent.chmod(0o755)
    with Served(directory, group=group) as served:
        directory.chmod(0o755)
        (directory / "control.sock").chmod(0o666)

        got = as_nobody(served.endpoint)

        may = {str(c.__struct_config__.tag) for c, role in ROLE_OF.items() if group and role is Role.VIEW}
        assert got == {operation: "done" if operation in may else "FORBIDDEN 4" for operation in got}
        assert served.requests.qsize() == len(may)
