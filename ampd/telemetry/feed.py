"""`/events`: the sections of the status page that have changed, as server-sent events, to a bounded number of listeners.

The supervisor never waits for a listener. It puts a frame into each one's short queue and goes on; a queue that is
full belongs to a browser that has not read for seconds, and that listener is cut off, connection and all, since a
frame that it missed could not be told from one that never was. Its browser connects again and gets the whole page.
Nothing is rendered while nobody listens.

Where the job says nothing for a while (a hung worker sends no snapshots) the listeners themselves ask for a new frame,
so that "last window 40 s ago" goes on counting; it also finds out the connections that are dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

MOST_LISTENERS = 16
"""Browsers that follow at a time; more are told to come again."""
MOST_WAITING = 8
"""Frames for one listener that have not been sent: about two seconds of a busy job."""
SILENCE_SECONDS = 5.0

_END = b""


class Listener:
    """One browser: its frames, and how to cut it off."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self.cut = cut


class Feed:
    """The listeners of one page; `render` gives its sections by id. One thread, the event loop's."""

    def __init__(self, render: Callable[[], dict[str, str]]) -> None:
        self._render = render
        self._shown: dict[str, str] = {}
        self._listeners: set[Listener] = set()
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether no listener is taken any more."""
        return self._is_closed or len(self._listeners) >= MOST_LISTENERS

    def join(self, cut: Callable[[], None]) -> Listener:
        """A new listener, who is sent the whole page first. `cut` is called if it does not read."""
        listener = Listener(cut)
        if self._listeners:
            self.publish()  # so that what this one is sent whole is what the others have
        else:
            self._shown = self._render()
        listener.frames.put_nowait(_frame(self._shown))
        self._listeners.add(listener)
        return listener

    async def listen(self, listener: Listener) -> AsyncIterator[bytes]:
        """Its frames until it leaves, is cut off, or the feed is closed."""
        try:
            while frame := await self._next(listener):
                yield frame
        finally:
            self._listeners.discard(listener)

    def publish(self) -> None:
        """Send what has changed to whoever listens; returns at once."""
        if not self._listeners:
            return
        new = self._render()
        changed = {name: html for name, html in new.items() if self._shown.get(name) != html}
        self._shown = new
        if changed:
            self._send(_frame(changed))

    def close(self) -> None:
        """End every stream, and take no more listeners."""
        self._is_closed = True
        self._send(_END)

    async def _next(self, listener: Listener) -> bytes:
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    return await listener.frames.get()
            except TimeoutError:
                self.publish()

    def _send(self, frame: bytes) -> None:
        for listener in list(self._listeners):
            try:
                listener.frames.put_nowait(frame)
            except asyncio.QueueFull:
                self._listeners.discard(listener)
                listener.cut()


def _frame(sections: dict[str, str]) -> bytes:
    return b"data: " + msgspec.json.encode(sections) + b"\n\n"
