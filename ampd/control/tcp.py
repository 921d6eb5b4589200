"""TCP addresses of a daemon: one for commands, and the next port for events.

Two neighbouring ports rather than two keys in the job file: whoever knows where to send commands knows where the
events are, as with the two unix sockets of one directory, and a firewall rule names both at a glance.

The listening sockets are made here and handed to libzmq (ZMQ_USE_FD), like those of `sockets`: an address that is
taken, or a name that is unknown, is then an error of ours with the key that is wrong. The asking side looks for itself
too, before libzmq does: a name is looked up in a thread that can be left behind, and a plain connect tells a machine
that refuses from one that swallows packets, where libzmq would try again in silence.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

import msgspec

from ampd.errors import CommandError, ConfigError, ExitCode

SCHEME = "tcp://"
_BACKLOG = 1024
"""Connections that wait to be taken in; the kernel cuts it to net.core.somaxconn."""
_TRIES = 50
_ADDRESS = re.compile(r"tcp://(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s\[\]:/*]+)):(\d{1,5})")
_MOST = 65534


class Remote(msgspec.Struct, frozen=True):
    """Where commands go; events come from the next port."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """As ZeroMQ writes it."""
        return (
            f"{SCHEME}[{self.host}]:{self.port}" if ":" in self.host else f"{SCHEME}{self.host}:{self.port}"
        )

    @property
    def events(self) -> Remote:
        """The neighbour that tells events."""
        return Remote(self.host, self.port + 1)


def parse(text: str) -> Remote:
    """The address in "tcp://HOST:PORT"; raises ConfigError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[3]) > _MOST:
        raise ConfigError(
            f"{text!r} is not an address: expected tcp://HOST:PORT with a port of at most {_MOST}",
            hint="for example tcp://127.0.0.1:5555 or tcp://[::1]:5555; events are on the next port",
        )
    return Remote(found[1] or found[2], int(found[3]))


def listen(where: Remote) -> tuple[Remote, socket.socket, socket.socket]:
    """Listen on a pair of ports, a free one for port 0; raises ConfigError where it cannot be."""
    for _ in range(1 if where.port else _TRIES):
        first = _listen(where)
        port: int = first.getsockname()[1]
        try:
            return Remote(where.host, port), first, _listen(Remote(where.host, port + 1))
        except ConfigError as error:
            first.close()
            trouble = error
    raise trouble


def reach(where: Remote, timeout: float) -> Remote:
    """`where` by number, after somebody there took a connection; raises CommandError within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    trouble: OSError = TimeoutError()
    for host in _look_up(where.host, timeout):
        try:
            left = max(0.001, deadline - time.monotonic())
            socket.create_connection((host, where.port), timeout=left).close()
        except OSError as error:
            trouble = error
        else:
            return Remote(host, where.port)
    raise _explain(where, trouble, timeout)


def _explain(where: Remote, trouble: OSError, timeout: float) -> CommandError:
    match trouble:
        case ConnectionRefusedError():
            return CommandError(
                f"nobody listens at {where.address}", code="NOT_RUNNING", exit_code=ExitCode.NOT_RUNNING,
                hint="start the daemon with [control] listen in its job file, or look at the port",
            )  # fmt: skip
        case TimeoutError():
            return _unreachable(f"{where.address} took no connection within {timeout:g} s")
        case _:
            return _unreachable(f"{where.address} cannot be reached: {trouble.strerror}")


def _listen(where: Remote) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(place[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"control.listen: cannot listen on {where.address}: {reason}", field="control.listen",
            hint="commands take this port and events the next; both must be free, and the address this machine's",
        ) from None  # fmt: skip


def _look_up(host: str, timeout: float) -> list[str]:
    """The numbers of a name, found by a thread that is left behind where the resolver takes too long."""
    found: list[str] = []

    def look() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            known = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.extend(str(place[0]) for *_, place in known)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(timeout)
    if not found and thread.is_alive():
        raise _unreachable(f"no name server told the address of {host!r} within {timeout:g} s")
    if not found:
        raise _unreachable(f"there is no host {host!r}")
    return found


def _unreachable(what: str) -> CommandError:
    return CommandError(
        f"{what}; nothing was sent", code="UNREACHABLE", exit_code=ExitCode.UNREACHABLE,
        hint="look at the address, the network and the firewall",
    )  # fmt: skip
