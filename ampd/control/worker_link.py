"""The worker's end of the link: a thread that owns the one socket, so that the step loop never meets one.

The step loop pays an append to a deque for a report (about a microsecond); the thread encodes and sends. Ringing the
thread's bell costs the caller far more than the write to an eventfd: the thread wakes, wants the interpreter lock, and
the loop waits for it. So only what somebody waits for rings (answers and milestones); the rest is picked up when the
thread next looks, 20 times a second. What may wait between the two is bounded, by kind:

- a snapshot replaces the one before it, since it is cumulative;
- events that tell of trouble (fell back, skipped, scale moved) are dropped once the queue is full, counted, and the
  gap is itself reported: a supervisor that is stopped for an hour must not grow the worker's memory;
- answers and milestones (applied, saved, finished) are never dropped: there are only as many as orders, checkpoints
  and ends, and the journal hangs on them.

Everything is numbered as it is reported and sent in that order, so a snapshot neither overtakes the `Hello` before it
nor trails the `Finished` after it.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections import deque

import msgspec
import zmq

from ampd import failpoints
from ampd.core.messages import Evaluated, FellBack, Lost, Order, Report, ScaleMoved, Skipped, Snapshot, Warned

MAX_WAITING = 4096
"""Events that wait for the thread; a loop with trouble in every window reaches it in minutes of a stopped peer."""
_LOOK_MILLISECONDS = 50
_DROPPABLE = (FellBack, Skipped, ScaleMoved, Evaluated, Warned)
_ENCODER = msgspec.msgpack.Encoder()
_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)


class WorkerLink:
    """One worker's link, from `start` to `close`; `report` may be called from any thread."""

    def __init__(self, endpoint: str, rank: int) -> None:
        self.orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._endpoint = endpoint
        self._numbers = itertools.count()  # next() is atomic, where += between threads is not
        self._events: deque[tuple[int, Report]] = deque()
        self._snapshot: deque[tuple[int, Report]] = deque(maxlen=1)
        self._held: tuple[int, Report] | None = None  # a snapshot that the thread took and has not sent yet
        self._lost = 0
        self._is_rung = False
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
            self._snapshot.append((next(self._numbers), report))
        elif not isinstance(report, _DROPPABLE):
            self._events.append((next(self._numbers), report))
            self._ring()
        elif len(self._events) < MAX_WAITING:
            self._events.append((next(self._numbers), report))
        else:
            self._lost += (
                1  # two threads at once may count one for two: it is a measure of trouble, not a ledger
            )

    def close(self, timeout: float) -> None:
        """Send what waits, for at most `timeout` seconds, then end the thread; may be called twice."""
        if self._bell < 0:
            return
        if self._closes_at is None:
            self._closes_at = time.monotonic() + timeout
            self._ring()
        self._thread.join()
        os.close(self._bell)
        self._bell = -1

    def _ring(self) -> None:
        # The thread lowers the flag before it looks at the queues: whoever appended before that is seen, whoever
        # appends after it finds the flag down and rings.
        if not self._is_rung:
            self._is_rung = True
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(self._endpoint)
            self._carry(socket)
            socket.linger = max(0, round(1000 * self._left()))

    def _carry(self, socket: zmq.Socket[bytes]) -> None:
        calm, full = self._poller(socket, zmq.POLLIN), self._poller(socket, zmq.POLLIN | zmq.POLLOUT)
        has_room = True
        while not self._is_over(has_room=has_room):
            for source, events in (calm if has_room else full).poll(self._patience()):
                if source is not socket:
                    os.eventfd_read(self._bell)
                elif events & zmq.POLLIN:
                    self._take_order(socket)
            self._is_rung = False
            has_room = self._send_all(socket)

    def _poller(self, socket: zmq.Socket[bytes], events: int) -> zmq.Poller:
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        poller.register(socket, events)
        return poller

    def _take_order(self, socket: zmq.Socket[bytes]) -> None:
        """One that is there; the next look finds the others, as cheaply as the socket could be asked for them."""
        frame = socket.recv(zmq.NOBLOCK)
        try:
            self.orders.put(_ORDERS.decode(frame))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.report(Warned(topic="link.garbled", message=f"an order that cannot be read: {error}"))

    def _send_all(self, socket: zmq.Socket[bytes]) -> bool:
        """Send what waits; False where the socket has no room for all of it."""
        while True:
            # The event is looked at first: a snapshot that was reported before it is then sure to be seen.
            event = self._events[0] if self._events else None
            if self._snapshot:
                self._held = self._snapshot.popleft()
            if self._held is not None and (event is None or self._held[0] < event[0]):
                if not _send(socket, self._held[1]):
                    return False
                self._held = None
            elif event is not None:
                if not _send(socket, event[1]):
                    return False
                self._events.popleft()
                self._tell_gap()
            else:
                return True

    def _tell_gap(self) -> None:
        if self._lost and len(self._events) < MAX_WAITING:
            lost, self._lost = self._lost, 0
            self._events.append((next(self._numbers), Lost(events=lost)))

    def _patience(self) -> int:
        if self._closes_at is None:
            return _LOOK_MILLISECONDS
        return min(_LOOK_MILLISECONDS, max(1, round(1000 * self._left())))

    def _left(self) -> float:
        return 0.0 if self._closes_at is None else self._closes_at - time.monotonic()

    def _is_over(self, *, has_room: bool) -> bool:
        if self._closes_at is None:
            return False
        return self._left() <= 0 or (has_room and not self._events and not self._snapshot)


def _send(socket: zmq.Socket[bytes], report: Report) -> bool:
    failpoints.reach("link.report")
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
