"""Many clients of one ROUTER at once, at a given rate, and how long each of them waited.

The load is open: requests go out when they are due, however slowly the answers come, so a server that stalls is asked
on and every wait is seen. A wait runs from the moment of sending to that of reading; how late the sending was itself is
kept too, since the load shares a core with the server. All clients are sockets of one thread: 32 processes would
measure the scheduler.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import zmq

CLIENTS = 32
_PATIENCE_SECONDS = 5.0
"""For the answers to the last requests."""

Make = Callable[[str], bytes]
"""The request of an id."""


@dataclass
class Waits:
    """Seconds from a request to its answer, and what was not answered as it should be."""

    answered: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    refused: int = 0
    unanswered: int = 0


@dataclass
class Stream:
    """Requests of one kind: how many a second, and what is heard of them."""

    rate: float
    make: Make
    is_good: Callable[[dict[str, object]], bool]
    waits: Waits = field(default_factory=Waits)


class Crowd:
    """Connected clients of an endpoint."""

    def __init__(self, endpoint: str, clients: int = CLIENTS) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets = [self._context.socket(zmq.DEALER) for _ in range(clients)]
        for socket in self._sockets:
            socket.linger = 0
            socket.connect(endpoint)
            self._poller.register(socket, zmq.POLLIN)
        self._number = 0
        self._sent: dict[str, tuple[float, Stream]] = {}
        self._name = f"{time.time_ns():x}"

    def close(self) -> None:
        """Leave."""
        self._context.destroy(linger=0)

    def drive(self, seconds: float, streams: Mapping[str, Stream]) -> None:
        """Ask for so long, each stream at its rate, and wait for what is still to be answered."""
        begin = time.monotonic()
        due = sorted(_schedule(begin, seconds, streams.values()), key=lambda entry: entry[0], reverse=True)
        while due:
            while due and due[-1][0] <= time.monotonic():
                at, stream = due.pop()
                self._send(at, stream)
            self._read(max(0.0, due[-1][0] - time.monotonic()) if due else 0.0)
        self.drain()

    def drain(self, patience: float = _PATIENCE_SECONDS) -> None:
        """Read until everything is answered, or nothing has come for a while."""
        deadline = time.monotonic() + patience
        while self._sent and time.monotonic() < deadline:
            self._read(0.05)
        for _, stream in self._sent.values():
            stream.waits.unanswered += 1
        self._sent.clear()

    def saturate(self, seconds: float, stream: Stream) -> float:
        """Answers a second where every client asks again as soon as it has its answer."""
        begin = time.monotonic()
        for _ in self._sockets:
            self._send(begin, stream)
        count = len(stream.waits.answered)
        while (now := time.monotonic()) < begin + seconds:
            self._read(begin + seconds - now)
            for _ in range(len(self._sockets) - len(self._sent)):
                self._send(time.monotonic(), stream)
        done = len(stream.waits.answered) - count
        self.drain()
        return done / seconds

    def ask(self, stream: Stream) -> None:
        """One request, and its answer."""
        self._send(time.monotonic(), stream)
        self.drain()

    def hears(self, frames: list[bytes]) -> bool:
        """Whether a message has any answer within a second."""
        self._sockets[0].send_multipart(frames)
        return bool(self._sockets[0].poll(1000))

    def _send(self, due: float, stream: Stream) -> None:
        self._number += 1
        request_id = f"{self._name}-{self._number}"
        now = time.monotonic()
        self._sent[request_id] = now, stream
        stream.waits.late.append(now - due)
        self._sockets[self._number % len(self._sockets)].send(stream.make(request_id))

    def _read(self, seconds: float) -> None:
        for socket, _event in self._poller.poll(round(1000 * seconds)):
            while int(socket.EVENTS) & zmq.POLLIN:
                self._take(socket.recv(zmq.NOBLOCK))

    def _take(self, frame: bytes) -> None:
        now, reply = time.monotonic(), msgspec.json.decode(frame)
        at, stream = self._sent.pop(reply["id"], (now, None))
        if stream is None:
            return
        if stream.is_good(reply):
            stream.waits.answered.append(now - at)
        else:
            stream.waits.refused += 1


@contextmanager
def crowd(endpoint: str, clients: int = CLIENTS) -> Iterator[Crowd]:
    """Clients that leave in the end."""
    clients_of = Crowd(endpoint, clients)
    try:
        yield clients_of
    finally:
        clients_of.close()


def _schedule(begin: float, seconds: float, streams: Iterable[Stream]) -> Iterator[tuple[float, Stream]]:
    for stream in streams:
        for number in range(round(stream.rate * seconds)):
            yield begin + number / stream.rate, stream


MALFORMED: dict[str, list[bytes]] = {
    "no JSON": [b"no json"],
    "unknown command": [b'{"v":1,"id":"malformed-1","command":"nonsense"}'],
    "no arguments": [b'{"v":1,"id":"malformed-2","command":"get"}'],
    "an array": [b"[]"],
    "a number": [b"1"],
    "null": [b"null"],
    "an empty object": [b"{}"],
    "a command that is a number": [b'{"v":1,"id":"malformed-3","command":1}'],
    "a thousand brackets": [b"[" * 1000],
    "nothing": [b""],
    "three frames": [b"{}", b"{}", b"{}"],
}
"""What a broken client may send, as frames."""


def answered(endpoint: str) -> list[str]:
    """Which of the malformed messages are answered at all, each by a client of its own."""
    heard = []
    for name, frames in MALFORMED.items():
        with crowd(endpoint, 1) as one:
            if one.hears(frames):
                heard.append(name)
    return heard


def take_precedence() -> None:
    """Come before whatever else the machine does, where this user may.

    Where the kernel groups processes by session, niceness counts within a group only, and the group has its own.
    """
    with contextlib.suppress(OSError):
        os.nice(-15)
        Path("/proc/self/autogroup").write_text("-15")


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share lies at or below; nan of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def milliseconds(values: list[float]) -> str:
    """p50 / p99 / the longest."""
    found = (1000 * percentile(values, share) for share in (0.5, 0.99, 1.0))
    return " / ".join(f"{value:.2f}" for value in found)


def median(values: list[float]) -> float:
    """nan of nothing."""
    return statistics.median(values) if values else float("nan")
