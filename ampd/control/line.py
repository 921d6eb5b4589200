"""The two ways to a daemon as the asking side has them: a unix socket, or TCP with keys.

Whatever differs between the two is here: how to find out whether anybody is there, what a socket needs before it
connects, where the events are, and what a failed handshake means in words. With CURVE a wrong key is silence: the
daemon cuts the connection and libzmq tries again for ever. Its monitor tells, and the two cases can be told apart: a
daemon that does not know *our* key says so with a status, one whose key is not the one that we expect cannot read our
first word and hangs up.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Protocol

import zmq

from ampd.control import tcp
from ampd.control.endpoints import EVENTS, Presence, probe, unreachable
from ampd.control.keyring import Credentials
from ampd.errors import CommandError, ConfigError, ExitCode

ADMITTED = zmq.EVENT_HANDSHAKE_SUCCEEDED
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
CUT = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
FOREIGN = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
LEFT = zmq.EVENT_DISCONNECTED
_WATCHED = ADMITTED | REFUSED | CUT | FOREIGN | LEFT
_LIST_IS_BAD = 500  # the status with which `zap` says that it cannot read its own list
_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0


class Line(Protocol):
    """One way to a daemon."""

    address: str
    """For messages."""
    is_keyed: bool
    """Whether the daemon must prove a key."""

    def reach(self, timeout: float) -> str:
        """The address to connect to; raises CommandError within `timeout` seconds where nobody is there."""

    def presence(self) -> Presence:
        """Who is there, without talking to it."""

    def prepare(self, socket: zmq.Socket[bytes]) -> None:
        """What a socket needs before it connects."""

    def events(self) -> str:
        """The address of the events; raises CommandError where it cannot be found out."""

    def failure(self, event: int, value: int) -> CommandError:
        """What a failed handshake means; `event` is REFUSED, CUT or FOREIGN."""


class UnixLine:
    """To a daemon of this machine."""

    is_keyed = False

    def __init__(self, address: str) -> None:
        self.address = address
        self._path = Path(address.removeprefix("ipc://"))

    def reach(self, timeout: float) -> str:
        """A connect to the socket never waits."""
        presence = self.presence()
        if presence is not Presence.LISTENING:
            raise unreachable(self._path, presence)
        return self.address

    def presence(self) -> Presence:
        """Told by the kernel."""
        return probe(self._path)

    def prepare(self, socket: zmq.Socket[bytes]) -> None:
        """Nothing: the kernel says who we are."""

    def events(self) -> str:
        """The socket beside it."""
        return f"ipc://{self._path.parent / EVENTS}"

    def failure(self, event: int, value: int) -> CommandError:
        """Of this user, or of a stranger behind the socket."""
        if event == REFUSED:
            return CommandError(
                f"the daemon refuses this user at {self.address}", code="FORBIDDEN", exit_code=ExitCode.UNREACHABLE,
                hint="run as the daemon's user, or have [control] group name a group of yours",
            )  # fmt: skip
        if event == CUT:
            return mute(self, "hung up in the handshake: it is no daemon, or a tunnel with none behind it")
        return mute(self, "speaks something else than ampd's protocol")


class TcpLine:
    """To a daemon elsewhere."""

    is_keyed = True

    def __init__(self, address: str, credentials: Credentials) -> None:
        self.address = address
        self._remote = tcp.parse(address)
        self._credentials = credentials

    def reach(self, timeout: float) -> str:
        """The address by number, so that libzmq looks no name up."""
        return tcp.reach(self._remote, timeout).address

    def presence(self) -> Presence:
        """Whether anybody takes a connection there; waits a second at most."""
        try:
            tcp.reach(self._remote, _LOOK_SECONDS)
        except CommandError as error:
            return Presence.STALE if error.exit_code is ExitCode.NOT_RUNNING else Presence.ABSENT
        return Presence.LISTENING

    def prepare(self, socket: zmq.Socket[bytes]) -> None:
        """The keys of both sides."""
        socket.ipv6 = 1
        socket.curve_serverkey = self._credentials.server.encode()
        socket.curve_publickey = self._credentials.own.public.encode()
        socket.curve_secretkey = self._credentials.own.secret.encode()

    def events(self) -> str:
        """The next port, by number too; waits some seconds at most."""
        return tcp.reach(self._remote, _PATIENCE_SECONDS).events.address

    def failure(self, event: int, value: int) -> CommandError:
        """Of our key, of the daemon's key, or of a stranger behind the port."""
        if event == REFUSED and value == _LIST_IS_BAD:
            return self._closed("cannot read its list of allowed keys", "look at the daemon's log")
        if event == REFUSED:
            return self._closed(
                f"does not allow the key {self._credentials.own.public}",
                "its operator allows it there with: ampctl keys allow NAME 'KEY' --role view",
            )
        if event == CUT:
            return self._closed(
                f"hung up in the handshake: its key is not {self._credentials.server}",
                "ask its operator for the server's public key (`ampctl keys list` there), and give it as --server-key",
            )
        return mute(self, "speaks something else than ampd's protocol with keys")

    def _closed(self, what: str, hint: str) -> CommandError:
        return CommandError(
            f"the daemon at {self.address} {what}",
            code="FORBIDDEN",
            exit_code=ExitCode.UNREACHABLE,
            hint=hint,
        )


def to(address: str, credentials: Credentials | None = None) -> Line:
    """The line to an ipc:// or tcp:// address; raises ConfigError for TCP without keys."""
    if not address.startswith(tcp.SCHEME):
        return UnixLine(address)
    if credentials is None:
        raise ConfigError(f"{address}: TCP needs keys", hint="give --server-key and --key")
    return TcpLine(address, credentials)


def mute(line: Line, what: str) -> CommandError:
    """The error for a peer that does not speak as it should."""
    return CommandError(
        f"what listens at {line.address} {what}; nothing was sent to it", code="UNREACHABLE",
        exit_code=ExitCode.UNREACHABLE, hint="the daemon may be stopped or overloaded; look at its log",
    )  # fmt: skip


def watch(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """A socket that tells what becomes of another's handshakes, for `noticed` to read."""
    address = f"inproc://monitor-{id(socket)}-{time.monotonic_ns()}"
    socket.monitor(address, _WATCHED)
    monitor = context.socket(zmq.PAIR)
    monitor.connect(address)
    return monitor


def noticed(monitor: zmq.Socket[bytes]) -> tuple[int, int]:
    """The next event and its value."""
    event, value = struct.unpack("=Hi", monitor.recv_multipart()[0])
    return event, value
