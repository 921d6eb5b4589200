"""The door: who may talk to the daemon, decided once per connection.

libzmq asks a ZAP server (an inproc socket of the same context) before it lets a connection speak. For a unix socket
the address it passes ends in `uid:gid:pid`, read from the kernel with SO_PEERCRED: a peer cannot choose it, it
holds for sockets bound by ZMQ_USE_FD too, and it is enforced before the first message. Over TCP it passes the public
key that the peer has proved with CURVE, which is looked up in the allow-list. What this side answers as user id rides
along on every message of the connection. The role of a uid is never looked up a second time; a key rides along too, since the
list that lets it in may change while it is connected.

pyzmq's own authenticator knows addresses and keys but no uids. The file mode already keeps strangers out; this is
what tells the owner from a member of the control group, and what names the author of a change.

A status of 400 says that the peer may not come in; 500, that the allow-list cannot be read, which lets nobody in. Both
reach the peer's monitor, and so its operator; the daemon's reads of it in the log.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
from collections.abc import Callable

import zmq
from zmq.utils import z85

from ampd.control.pump import Pump
from ampd.core.protocol import Role
from ampd.errors import ConfigError

_ADDRESS = "inproc://zeromq.zap.01"  # fixed by the protocol, RFC 27
DOMAIN = b"ampd"
_NO_KEY = "-"


Roles = Callable[[int, int], Role | None]
Keys = Callable[[str], tuple[str, Role] | None]


def no_keys(_key: str) -> None:
    """The allow-list of a daemon that does not listen on TCP."""


class _Refused(Exception):
    """The peer does not come in; `status` is ZAP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Door:
    """Answers libzmq's questions for every socket of one context; the loop's thread only."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], role_of: Roles, find_key: Keys = no_keys
    ) -> None:
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._role_of = role_of
        self._find_key = find_key
        self._pump = Pump(self._socket, self._answer)

    def open(self) -> None:
        """Take the place that libzmq asks at; from here on nobody enters unasked."""
        self._socket.bind(_ADDRESS)

    def start(self) -> None:
        """Begin to answer; connections made before wait at the door."""
        self._pump.start()

    def close(self) -> None:
        """Answer no more; may be called twice."""
        if not self._socket.closed:
            self._pump.stop()
            self._socket.close()

    def _answer(self, frames: list[zmq.Frame]) -> None:
        version, request, _domain, address, _identity, mechanism, *proof = (frame.bytes for frame in frames)
        try:
            author, role, key = self._admit(mechanism, address.decode("ascii", "replace"), proof)
        except _Refused as refused:
            verdict = [b"%d" % refused.status, str(refused).encode(), b"", b""]
            logging.getLogger(__name__).warning("peer.refused: %s", refused)
        else:
            verdict = [b"200", b"", user_id(role, author, key), b""]
        self._socket.send_multipart([version, request, *verdict], zmq.NOBLOCK)
        self._pump.poke()

    def _admit(self, mechanism: bytes, address: str, proof: list[bytes]) -> tuple[str, Role, str]:
        """Author, role and key of a peer; raises _Refused."""
        if mechanism == b"CURVE":
            key = z85.encode(proof[0]).decode()
            return (*self._admit_key(key, address), key)
        try:
            uid, gid = credentials(address)
        except ValueError:
            raise _Refused(400, f"{address} proved neither a uid nor a key") from None
        role = self._role_of(uid, gid)
        if role is None:
            raise _Refused(400, f"uid {uid} may not use this daemon")
        return name_of(uid), role, ""

    def _admit_key(self, key: str, address: str) -> tuple[str, Role]:
        try:
            found = self._find_key(key)
        except ConfigError as error:
            raise _Refused(500, f"nobody comes in over TCP: {error}") from None
        if found is None:
            raise _Refused(400, f"the key {key} from {address} is not in the list of allowed keys")
        return found


def credentials(address: str) -> tuple[int, int]:
    """Uid and gid of a ZAP address, `localhost:uid:gid:pid`."""
    _, uid, gid, _pid = address.rsplit(":", 3)
    return int(uid), int(gid)


def role_of(uid: int, gid: int, *, group: str = "") -> Role | None:
    """What a local peer may do; None refuses it. The daemon's own user and root are admin, the group may look."""
    if uid in (os.geteuid(), 0):
        return Role.ADMIN
    return Role.VIEW if group and _is_member(uid, gid, group) else None


def name_of(uid: int) -> str:
    """The user's name for the record, or `uid:N` where the system has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"


def user_id(role: Role, author: str, key: str = "") -> bytes:
    """What a connection carries once it is admitted; local peers have no key."""
    return f"{role.name} {key or _NO_KEY} {author}".encode()


def read_user_id(text: str) -> tuple[Role, str, str]:
    """The inverse of `user_id`: role, author and key."""
    role, key, author = text.split(" ", 2)
    return Role[role], author, "" if key == _NO_KEY else key


def _is_member(uid: int, gid: int, group: str) -> bool:
    wanted = grp.getgrnam(group)
    if gid == wanted.gr_gid:
        return True
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return False
    return wanted.gr_gid in os.getgrouplist(user.pw_name, user.pw_gid)
