"""The worker's end of the link: a thread that owns the one socket, so that the step loop never meets one.

The step loop pays an append to a deque for a report, and one write to an eventfd where the thread is asleep; the
thread encodes and sends. What may wait between them is bounded, by kind:

- a snapshot replaces the one before it, since it is cumulative;
- events that tell of trouble (fell back, skipped, scale moved) are dropped once the queue is full, counted, and the
  gap is itself reported: a supervisor that is stopped for an hour must not grow the worker's memory;
- answers and milestones (applied, saved, finished) are never dropped: there are only as many as orders, checkpoints
  and ends, and the journal hangs on them.

The order of events is kept, and a snapshot never overtakes nor trails a `Finished` that was reported after it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque

import msgspec
import zmq

from ampd.core.messages import Evaluated, FellBack, Order, Report, ScaleMoved, Skipped, Snapshot, Warned

MAX_WAITING = 4096
"""Events that wait for the thread; a loop with trouble in every window reaches it in minutes of a stopped peer."""
_DROPPABLE = (FellBack, Skipped, ScaleMoved, Evaluated, Warned)
_ENCODER = msgspec.msgpack.Encoder()
_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)


class WorkerLink:
    """One worker's link, from `start` to `close`; `report` may be called from any thread."""

    def __init__(self, endpoint: str, rank: int) -> None:
        self.orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._endpoint = endpoint
        self._events: deque[Report] = deque()
        self._snapshot: deque[Report] = deque(maxlen=1)
        self._held: Report | None = None  # a snapshot that the thread took and could not send yet
        self._lost = 0
        self._is_stirred = False
        self._closes_at: float | None = None
        self._bell = -1
        self._thread = threading.Thread(target=self._run, name=f"link-{rank}", daemon=True)

    def start(self) -> None:
        """Connect, and begin to carry; the supervisor need not be there yet."""
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread.start()

    def report(self, report: Report) -> None:
        """Hand a report to the thread; never waits. What it holds must not be changed any more."""
        if type(report) is Snapshot:
            self._snapshot.append(report)
        elif len(self._events) >= MAX_WAITING and isinstance(report, _DROPPABLE):
            self._lost += (
                1  # two threads at once may count one for two: it is a measure of trouble, not a ledger
            )
            return
        else:
            self._events.append(report)
        self._stir()

    def close(self, timeout: float) -> None:
        """Send what waits, for at most `timeout` seconds, then end the thread; may be called twice."""
        if self._bell < 0:
            return
        if self._closes_at is None:
            self._closes_at = time.monotonic() + timeout
            self._stir()
        self._thread.join()
        os.close(self._bell)
        self._bell = -1

    def _stir(self) -> None:
        # The thread lowers the flag before it looks at the queues: whoever appended before that is seen, whoever
        # appends after it finds the flag down and rings.
        if not self._is_stirred:
            self._is_stirred = True
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(self._endpoint)
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        has_room = True
        while not self._is_over(has_room=has_room):
            poller.register(socket, zmq.POLLIN if has_room else zmq.POLLIN | zmq.POLLOUT)
            ready = dict(poller.poll(self._patience()))
            if self._bell in ready:
                os.eventfd_read(self._bell)
            self._is_stirred = False
            if ready.get(socket, 0) & zmq.POLLIN:
                self._take_orders(socket)
            has_room = self._send_all(socket)
        socket.close(linger=max(0, round(1000 * self._left())))
        context.term()

    def _take_orders(self, socket: zmq.Socket[bytes]) -> None:
        while int(socket.EVENTS) & zmq.POLLIN:
            frame = socket.recv(zmq.NOBLOCK)
            try:
                self.orders.put(_ORDERS.decode(frame))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self.report(Warned(topic="link.garbled", message=f"an order that cannot be read: {error}"))

    def _send_all(self, socket: zmq.Socket[bytes]) -> bool:
        """Send what waits; False where the socket has no room for all of it."""
        while True:
            # The event first, then the snapshot: one that was reported before a Finished cannot be left behind it.
            event = self._events[0] if self._events else None
            if self._snapshot:
                self._held = self._snapshot.popleft()
            report = self._held or event
            if report is None:
                return True
            if not _send(socket, report):
                return False
            if self._held is not None:
                self._held = None
            else:
                self._events.popleft()
                self._tell_gap()

    def _tell_gap(self) -> None:
        if self._lost and len(self._events) < MAX_WAITING:
            lost, self._lost = self._lost, 0
            self._events.append(
                Warned(topic="events.lost", message=f"{lost} events were dropped: the link was full")
            )

    def _patience(self) -> int | None:
        return None if self._closes_at is None else max(1, round(1000 * self._left()))

    def _left(self) -> float:
        return 0.0 if self._closes_at is None else self._closes_at - time.monotonic()

    def _is_over(self, *, has_room: bool) -> bool:
        if self._closes_at is None:
            return False
        return self._left() <= 0 or (has_room and not self._events and not self._snapshot)


def _send(socket: zmq.Socket[bytes], report: Report) -> bool:
    try:
        socket.send(_encode(report), zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def _encode(report: Report) -> bytes:
    try:
        return _ENCODER.encode(report)
    except (TypeError, ValueError, OverflowError) as error:  # a bug of ours must not make the worker mute
        warning = Warned(topic="link.unsendable", message=f"{type(report).__name__}: {error}")
        return _ENCODER.encode(warning)
