"""Real servers for tests: an event loop in a thread, and a control server on it that answers by a script."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import zmq

from ampd.control import line
from ampd.control.gate import Gate
from ampd.control.keyring import Credentials
from ampd.control.server import ControlServer, Peer
from ampd.core.protocol import Done, Event, Refusal, Reply, Request

BOOT = "boot-1"
DEADLINE_SECONDS = 30.0
_T = TypeVar("_T")
Script = Callable[[Request], Reply | None]


def done(
    request: Request, result: dict[str, Any] | None = None, *, revision: int = 1, window: int = 7
) -> Done:
    """The answer that a daemon gives to `request`."""
    return Done(id=request.id, boot=BOOT, revision=revision, window=window, result=result or {})


class LoopThread:
    """An event loop that runs in a thread of its own, from `with` to its end."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.failures: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_SECONDS)
        self.loop.close()

    def begin(self, work: Coroutine[Any, Any, _T]) -> Callable[[], _T]:
        """Start a coroutine on the loop; the function that is returned waits for its end."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        return lambda: future.result(DEADLINE_SECONDS)

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """The result of a function, called on the loop's thread."""

        async def run() -> _T:
            return function(*arguments)

        return self.begin(run())()


class Served:
    """A control server in `directory` that answers each request by `script`; None leaves it unanswered."""

    def __init__(
        self,
        directory: Path,
        script: Script = done,
        *,
        group: str = "",
        kind: type[ControlServer] = ControlServer,
        boot: str = BOOT,
        gate: Gate | None = None,
    ) -> None:
        self.requests: queue.SimpleQueue[tuple[Peer, Request]] = queue.SimpleQueue()
        self.loop = LoopThread()
        self.server = kind.bind(directory, boot=boot, group=group, gate=gate)
        self._script = script

    def __enter__(self) -> Self:
        self.loop.__enter__()
        self._ended = self.loop.begin(self.server.serve(self._handle))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.call(self.server.close)
        self._ended()
        self.loop.__exit__(kind, error, trace)

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    @property
    def remote(self) -> str:
        return self.server.remote

    def publish(self, event: Event) -> None:
        self.loop.call(self.server.publish, event)

    def _handle(self, peer: Peer, request: Request) -> None:
        self.requests.put((peer, request))
        reply = self._script(request)
        if reply is not None:
            self.server.reply(peer, reply)


class Dealer:
    """A bare client: frames out, replies in."""

    def __init__(
        self, endpoint: str, kind: int = zmq.DEALER, *, credentials: Credentials | None = None
    ) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(kind)
        line.to(endpoint, credentials).prepare(self.socket)
        self.socket.rcvtimeo = round(1000 * DEADLINE_SECONDS)
        self.socket.connect(endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=0)

    def ask(self, *frames: bytes) -> Reply:
        """The reply to a message of these frames."""
        self.socket.send_multipart(frames)
        reply: Reply = msgspec.json.decode(self.socket.recv(), type=Reply)
        return reply

    def ask_badly(self, *frames: bytes) -> Refusal:
        """The refusal of a message of these frames."""
        reply = self.ask(*frames)
        assert isinstance(reply, Refusal)
        return reply
