"""The link between supervisor and workers: orders down, reports up, msgpack on a unix socket.

This is the supervisor's end; the worker's, `WorkerLink`, is a thread with queues, in `worker_link`.

ROUTER here, DEALER in each worker. A connection is known by the identity that ROUTER gave it, and becomes the voice
of a rank by its `Hello`; the last Hello of a rank wins. The alternative, workers that choose "rank-0" as identity
with ROUTER_HANDOVER, would hand a restarted worker's name to whoever connects last, and the last words of its
predecessor would pass for its own. This way what a predecessor still says is recognised, and dropped.

An order to a worker that is gone is dropped too: it is the worker's exit that the supervisor acts on, and no order is
more urgent than that.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from ampd import failpoints
from ampd.control.endpoints import LINK, socket_path
from ampd.control.lifeline import PulsePage
from ampd.control.pump import Pump
from ampd.control.sockets import listen
from ampd.core.messages import Hello, Order, Report
from ampd.errors import LinkError

MAX_REPORT_BYTES = 1 << 20
"""A snapshot has about 2 kB; a megabyte is none of ours."""
_QUEUED = 10000  # messages per worker and direction, inside libzmq
_LAST_WORDS_MILLISECONDS = 250

_ENCODER = msgspec.msgpack.Encoder()
_REPORTS: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def log_error(error: LinkError) -> None:
    """What `serve` does with a report that cannot be read, unless told otherwise."""
    logging.getLogger(__name__).error("link.garbled: %s", error)


class SupervisorLink:
    """The link's socket, from `bind` to `close`; the event loop's thread only."""

    def __init__(self, path: Path, pulse: PulsePage) -> None:
        self.endpoint = f"ipc://{path}"
        self.pulse = pulse
        """What the worker says where it cannot speak."""
        self.undelivered = 0
        """Orders dropped because their worker was gone, or read nothing."""
        self._path = path
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._pump = Pump(self._router, self._receive)
        self._voices: dict[int, bytes] = {}
        self._ranks: dict[bytes, int] = {}
        self._handle: Callable[[int, Report], None] = lambda _rank, _report: None
        self._on_error: Callable[[LinkError], None] = log_error
        self._closed = asyncio.Event()

    @classmethod
    def bind(cls, directory: Path) -> SupervisorLink:
        """Listen in a runtime directory that `ControlServer.bind` has claimed; 0600 whatever its group may do."""
        path = socket_path(directory, LINK)
        listener = listen(path)
        link = cls(path, PulsePage.make(directory))
        link._router.router_mandatory = 1
        link._router.maxmsgsize = MAX_REPORT_BYTES
        link._router.sndhwm = link._router.rcvhwm = _QUEUED
        link._router.use_fd = listener.detach()
        link._router.bind(link.endpoint)
        return link

    async def serve(
        self, handle: Callable[[int, Report], None], on_error: Callable[[LinkError], None] = log_error
    ) -> None:
        """Give every report to `handle` with its rank, until `close`; one that cannot be read goes to `on_error`."""
        self._handle, self._on_error = handle, on_error
        self._pump.start()
        await self._closed.wait()

    def send(self, rank: int, order: Order) -> None:
        """Order a worker that has said Hello; never waits, and raises LinkError for a rank that never spoke."""
        if rank not in self._voices:
            raise LinkError(f"{type(order).__name__} for rank {rank}, which has not said Hello")
        if self._router.closed:
            return
        failpoints.reach("link.order")
        try:
            self._router.send_multipart([self._voices[rank], _ENCODER.encode(order)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.undelivered += 1
        self._pump.poke()

    def close(self) -> None:
        """Hand queued orders to the kernel and let go of the socket; may be called twice."""
        if self._router.closed:
            return
        self._pump.stop()
        self._router.close(linger=_LAST_WORDS_MILLISECONDS)
        self._context.term()
        self._path.unlink(missing_ok=True)
        self.pulse.close()
        self._closed.set()

    def _receive(self, frames: list[zmq.Frame]) -> None:
        voice, *parts = (frame.bytes for frame in frames)
        try:
            report = _decode(parts)
            rank = self._rank_of(voice, report)
        except LinkError as error:
            self._on_error(error)
            return
        if self._voices[rank] == voice:  # else the last words of a worker that was replaced
            self._handle(rank, report)

    def _rank_of(self, voice: bytes, report: Report) -> int:
        if isinstance(report, Hello):
            self._ranks[voice] = report.rank
            self._voices[report.rank] = voice
        if voice not in self._ranks:
            raise LinkError(f"{type(report).__name__} from a worker that has not said Hello")
        return self._ranks[voice]


def _decode(parts: list[bytes]) -> Report:
    if len(parts) != 1:
        raise LinkError(f"a report of {len(parts)} frames; expected one")
    try:
        return _REPORTS.decode(parts[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LinkError(
            f"a report of {len(parts[0])} bytes that pid {os.getpid()} cannot read: {error}"
        ) from None
