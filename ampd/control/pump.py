"""One ZeroMQ socket on the asyncio loop: every message that arrives is given to a function, on the loop's thread.

A ZeroMQ socket has a file descriptor that says only "something may have changed", once: whoever sends on the socket
may thereby swallow the news of a message. So the socket is asked again (EVENTS) after every send, through `poke`.
zmq.asyncio solves the same with a future for each message and queues of its own; a send that may never block and
may be dropped needs neither, and reads plainer as a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

_IN = int(zmq.POLLIN)
_TURN = 64
"""Messages taken before other tasks of the loop get a turn: a flood must not stop the metrics page."""


class Pump:
    """Gives a socket's messages to `receive`, from `start` to `stop`; the loop's thread only."""

    def __init__(self, socket: zmq.Socket[bytes], receive: Callable[[list[zmq.Frame]], None]) -> None:
        self._socket = socket
        self._receive = receive
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.FD, self._turn)
        self.poke()

    def stop(self) -> None:
        """End; may be called twice."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket.FD)
            self._loop = None

    def poke(self) -> None:
        """Look for messages soon; to be called after each send on the socket."""
        if self._loop is not None:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        for _ in range(_TURN):
            if self._loop is None or not int(self._socket.get(zmq.EVENTS)) & _IN:
                return
            try:
                self._receive(self._socket.recv_multipart(zmq.NOBLOCK, copy=False))
            except BaseException:
                self.poke()  # what follows in the queue is not lost with this one
                raise
        self.poke()
