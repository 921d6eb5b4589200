"""Malformed traffic against a real daemon: after each piece of it the next good request is answered.

Five kinds, by the unix socket and by TCP: damaged requests of a peer that was admitted, which get one answer each;
multipart bombs, one answer too; messages over the limit, which cost their sender the connection; bytes that are no
handshake; and a CURVE handshake that goes wrong at some point: a bad greeting, a hello of junk, half a hello, a hello that
is far too long. The daemon's memory is looked at as well: what strangers send must not stay.
"""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from ampd.control.tcp import parse
from ampd.core.protocol import MAX_REQUEST_BYTES, Reply, Role
from tests.campaigns.decoder_fuzz import damaged
from tests.control.keyed import Keyed
from tests.control.served import DEADLINE_SECONDS, Dealer
from tests.daemon.daemons import Job
from tests.daemon.remote import give_keys, listen

NAME = "wire-fuzz"
MESSAGES = 200
MOST_GROWTH_BYTES = 16 << 20
_GOOD = b'{"v": 1, "id": "good-request", "command": {"op": "status"}}'
_GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01"
_HELLO_BYTES = 200


def case(seed: int, messages: int = MESSAGES) -> None:
    """Send so many malformed messages; the daemon answers a good one after each."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        job = Job(Path(home))
        try:
            keys, address = give_keys(job), listen(job)
            daemon = job.start()
            daemon.runs()
            ways = [
                _Way(f"ipc://{job.home / 'rt' / 'toy' / 'control.sock'}", None, draw),
                _Way(address, keys, draw),
            ]
            _attack(ways, messages // 4, draw)  # what a first flood makes libzmq keep is not growth
            before = _resident(daemon.pid)
            _attack(ways, messages, draw)
            growth = _resident(daemon.pid) - before
            for way in ways:
                way.close()
        finally:
            job.clean()
    assert growth <= MOST_GROWTH_BYTES, f"the daemon has grown by {growth >> 10} KiB"
    if messages > MESSAGES:
        print(f"{NAME}: {messages} messages, a good one answered after each; memory {growth >> 10:+d} KiB")


def _attack(ways: list[_Way], messages: int, draw: random.Random) -> None:
    for _ in range(messages):
        way = draw.choice(ways)
        draw.choices(_KINDS, weights=_WEIGHTS)[0](way)
        way.asks()
    for way in ways:
        way.settles()


class _Way:
    """One way in: a peer that asks well, one that asks badly, and any number that never come in."""

    def __init__(self, address: str, keys: Keyed | None, draw: random.Random) -> None:
        self.address = address
        self.draw = draw
        self.credentials = keys.credentials(Role.ADMIN) if keys else None
        self._good = Dealer(address, credentials=self.credentials)
        self._bad = Dealer(address, credentials=self.credentials)
        self._unanswered = 0

    def asks(self) -> None:
        """The good peer is answered; raises zmq.Again where it is not."""
        reply = self._good.ask(_GOOD)
        assert reply.id == "good-request", reply

    def misbehaves(self, *frames: bytes) -> None:
        """The bad peer sends what deserves one answer."""
        self._bad.socket.send_multipart(frames)
        self._unanswered += 1
        while self._bad.socket.poll(0):
            self._take()

    def settles(self) -> None:
        """Every message of the bad peer has been answered, each once."""
        while self._unanswered:
            self._take()
        assert not self._bad.socket.poll(20), "one answer too many"

    def connect(self) -> socket.socket:
        """A bare connection to commands or, over TCP, to events."""
        if self.address.startswith("ipc://"):
            bare = socket.socket(socket.AF_UNIX)
            bare.settimeout(DEADLINE_SECONDS)
            bare.connect(self.address.removeprefix("ipc://"))
            return bare
        where = parse(self.address)
        where = self.draw.choice([where, where.events])
        return socket.create_connection((where.host, where.port), timeout=DEADLINE_SECONDS)

    def close(self) -> None:
        for dealer in (self._good, self._bad):
            dealer.__exit__(None, None, None)

    def _take(self) -> None:
        msgspec.json.decode(self._bad.socket.recv(), type=Reply)
        self._unanswered -= 1


def _damaged(way: _Way) -> None:
    way.misbehaves(damaged(way.draw))


def _bomb(way: _Way) -> None:
    way.misbehaves(*[way.draw.randbytes(way.draw.choice([0, 1, 100]))] * way.draw.randint(2, 1000))


def _too_large(way: _Way) -> None:
    """Over the limit of an answer, or of what is taken in at all."""
    if way.draw.random() < 0.5:
        way.misbehaves(b" " * (MAX_REQUEST_BYTES + way.draw.randint(1, 1000)))
        return
    with Dealer(way.address, credentials=way.credentials) as flood:
        flood.socket.send(b"x" * (4 * MAX_REQUEST_BYTES + way.draw.randint(1, 100000)))
        flood.socket.poll(2)


def _junk(way: _Way) -> None:
    """Bytes that are no handshake, or begin like one and end somewhere."""
    start = way.draw.choice(
        [b"", b"GET / HTTP/1.1\r\n\r\n", _GREETING[: way.draw.randint(1, 12)], b"\x01\x00"]
    )
    _say(way, start + way.draw.randbytes(way.draw.randint(0, 400)))


def _handshake(way: _Way) -> None:
    """A whole greeting of the right or another mechanism, then a command that is wrong in one of many ways."""
    mechanism = way.draw.choice([b"CURVE", b"CURVE", b"NULL", b"PLAIN", b"XXXXX"])
    greeting = (_GREETING + mechanism.ljust(20, b"\0") + way.draw.choice([b"\0", b"\1"])).ljust(64, b"\0")
    body = way.draw.choice([b"\x05HELLO", b"\x08INITIATE", b"\x05READY", b"\x07MESSAGE", b"\x04PING", b""])
    size = way.draw.choice([0, 1, _HELLO_BYTES - 6, _HELLO_BYTES, 257, 60000])
    body += way.draw.randbytes(size)
    flags = way.draw.choice([4, 4, 4, 0, 1, 6, 255])
    announced = way.draw.choice([len(body), len(body), 0, 2**63 - 1, 2**31, len(body) + 1])
    head = bytes([flags | 2]) + announced.to_bytes(8, "big") if announced > 255 else bytes([flags, announced])
    whole = greeting + head + body
    _say(way, whole[: way.draw.randint(1, len(whole))] if way.draw.random() < 0.3 else whole)


def _say(way: _Way, stream: bytes) -> None:
    with way.connect() as bare, contextlib.suppress(OSError):
        bare.sendall(stream)
        if way.draw.random() < 0.5:
            bare.shutdown(socket.SHUT_WR)
        if way.draw.random() < 0.2:
            bare.recv(4096)


_KINDS: tuple[Callable[[_Way], None], ...] = (_damaged, _bomb, _too_large, _junk, _handshake)
_WEIGHTS = (60, 3, 2, 15, 20)


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(row.split()[1]) for row in rows if row.startswith("VmRSS"))
