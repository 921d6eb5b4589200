"""A directory of keys with a daemon's pair and one client in each role, all of it real."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ampd.control import allowed, keyring
from ampd.control.allowed import AllowList
from ampd.control.gate import Gate
from ampd.control.keyring import Credentials, KeyPair
from ampd.control.tcp import Remote
from ampd.core.protocol import Role

NAMES = {Role.VIEW: "wall", Role.OPERATE: "alice", Role.ADMIN: "boss"}


class Keyed(msgspec.Struct, frozen=True):
    """The keys of both sides, and the gate that they open; on free ports of this machine."""

    directory: Path
    server: KeyPair
    clients: dict[Role, KeyPair]

    @property
    def gate(self) -> Gate:
        listed = AllowList(self.directory / allowed.FILE)
        return Gate(Remote("127.0.0.1", 0), self.server, listed, tuple(NAMES.values()))

    def credentials(self, role: Role) -> Credentials:
        """Those of the client in a role."""
        return Credentials(self.server.public, self.clients[role])


def keyed(directory: Path) -> Keyed:
    """Make all the keys, and allow the clients."""
    server = keyring.make(directory, keyring.SERVER)
    clients = {role: keyring.make(directory, name) for role, name in NAMES.items()}
    for role, pair in clients.items():
        allowed.allow(directory, NAMES[role], pair.public, role.name.lower())  # type: ignore[arg-type]  # one of three
    return Keyed(directory, server, clients)


def stranger(server: KeyPair) -> Credentials:
    """A client that knows the daemon's key and is in nobody's list."""
    return Credentials(server.public, keyring.pair())
