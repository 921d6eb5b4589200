"""HTTP of the supervisor: /metrics, /healthz, /readyz, and the page at / with its /events; on its event loop. Read-only.

Importing this loads starlette, uvicorn and the Prometheus client (0.2 s on a small machine), so only the daemon's
composition root does it. A snapshot makes the metrics page stale; the first scrape after that builds it anew, and the
others copy bytes, so that a storm of scrapes costs no more than a page per snapshot. (To build it with every snapshot
took the event loop three milliseconds four times a second: more than a hundredth of all commands waited for one, and
most of those pages nobody read.) Building it may fail without the job noticing: the page before stays, and the failure
is logged.

uvicorn is used for its HTTP alone: it gets a socket that we bound (so that a taken port is a message and not
an exit), installs no signal handlers (they are the daemon's) and logs through our log.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ampd.core.lifecycle import JobState
from ampd.core.view import JobView
from ampd.errors import ConfigError
from ampd.telemetry import logs
from ampd.telemetry.collector import JobCollector
from ampd.telemetry.cost import Cost
from ampd.telemetry.energy import Energy
from ampd.telemetry.feed import Feed
from ampd.telemetry.metrics_page import Collected, Page, tolerated
from ampd.telemetry.page import HEADERS, fragments, page

READY = frozenset({JobState.RUNNING, JobState.PAUSED, JobState.COMPLETED})
"""The states that /readyz calls ready; a completed job that is held still serves."""

LEAST_SECONDS = 0.25
"""The pages become stale at most this often, however many snapshots and events arrive."""

_OPENMETRICS = "application/openmetrics-text"
_MOST_CONNECTIONS = (
    256  # far more than scrapers and browsers of one job; far fewer than the open files we may have
)
_GRACE_SECONDS = 2


class MetricsServer:
    """Serves one job's view; everything but `bind` belongs to the event loop's thread."""

    def __init__(self, view: Callable[[], JobView]) -> None:
        self._view = view
        self._registry = CollectorRegistry()
        self._registry.register(JobCollector(view, cost=lambda: self._cost.now(), machine=Energy().readings))
        self._feed = Feed(lambda: fragments(view(), time.time()))
        self._collected = Collected([])
        self._plain = Page(CONTENT_TYPE_PLAIN_0_0_4, generate_latest)
        self._openmetrics = Page(openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest)
        self._is_stale = True
        self._refreshed = float("-inf")
        self._cost = Cost()
        self._due: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._is_closed = False

    @property
    def address(self) -> str:
        """host:port that is listened on; the real port where 0 was asked for. Empty before `bind`."""
        return _address(self._socket.getsockname()) if self._socket is not None else ""

    def bind(self, listen: str) -> None:
        """Listen on "host:port". Raises ConfigError naming http.listen, with what to do; connections wait for `serve`."""
        self._socket = _listen(listen)

    async def serve(self) -> None:
        """Answer until `close`, then let requests under way finish."""
        if self._is_closed:
            return
        assert self._socket is not None, "bind before serve"
        self._collect()
        self._server = _Server(self._configure())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._release()

    def close(self) -> None:
        """End `serve`, or keep it from beginning; frees the port at once where it never ran. May be called twice."""
        self._is_closed = True
        self._feed.close()
        if self._server is None:
            self._release()
        else:
            self._server.should_exit = True

    def refresh(self) -> None:
        """The view has changed: the pages are stale, now or as soon as LEAST_SECONDS have passed since they last were."""
        wait = self._refreshed + LEAST_SECONDS - time.monotonic()
        if wait <= 0:
            self._renew()
        elif self._due is None and self._server is not None:
            self._due = asyncio.get_running_loop().call_later(wait, self._renew)

    def _renew(self) -> None:
        self._cancel()
        self._refreshed = time.monotonic()
        self._is_stale = True
        with tolerated():
            self._feed.publish()

    def _collect(self) -> None:
        self._is_stale = False
        with tolerated():
            self._collected = Collected(list(self._registry.collect()))

    def _cancel(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _release(self) -> None:
        self._cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _configure(self) -> uvicorn.Config:
        logs.adopt("uvicorn.error")
        return uvicorn.Config(
            Starlette(routes=self._routes()),
            http="h11", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, limit_concurrency=_MOST_CONNECTIONS, timeout_graceful_shutdown=_GRACE_SECONDS,
        )  # fmt: skip

    def _routes(self) -> list[Route]:
        return [
            Route("/", self._root),
            Route("/events", self._events),
            Route("/metrics", _Timed(self._scraped, self._count), methods=["GET"]),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
        ]

    def _count(self, seconds: float) -> None:
        cost = self._cost
        self._cost = replace(cost, scrapes=cost.scrapes + 1, serve_seconds=cost.serve_seconds + seconds)

    def _scraped(self, request: Request) -> Response:
        is_strict = _OPENMETRICS in request.headers.get("accept", "")
        page = self._openmetrics if is_strict else self._plain
        began = time.monotonic()
        if self._is_stale:
            self._collect()
        with tolerated():
            page.write(self._collected)
        took = time.monotonic() - began
        self._cost = replace(self._cost, build_seconds=self._cost.build_seconds + took)
        return Response(page.text, media_type=page.media_type)

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        state = self._view().state
        return PlainTextResponse(f"{state}\n", status_code=200 if state in READY else 503)

    async def _root(self, _request: Request) -> Response:
        return HTMLResponse(page(self._view(), time.time()), headers=HEADERS)

    async def _events(self, request: Request) -> Response:
        if self._feed.is_full:
            return PlainTextResponse("too many listeners\n", 503, headers={"Retry-After": "5"})
        listener = self._feed.join(lambda: self._cut(request))
        frames = self._feed.listen(listener)
        return StreamingResponse(
            frames, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    def _cut(self, request: Request) -> None:
        """Drop a connection with what waits in its buffer; closing it would wait for a reader who does not read."""
        assert self._server is not None
        for connection in self._server.server_state.connections:
            transport = getattr(connection, "transport", None)
            if transport is not None and connection.client == tuple(request.client or ()):  # type: ignore[union-attr]  # uvicorn's h11
                transport.abort()


class _Timed:
    """An answer, and a word on how long sending it took; to read the request and to make the answer is not in that."""

    def __init__(self, answer: Callable[[Request], Response], count: Callable[[float], None]) -> None:
        self._answer = answer
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        answer = self._answer(Request(scope))
        began = time.perf_counter()
        await answer(scope, receive, send)
        self._count(time.perf_counter() - began)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone."""
        yield


def _listen(listen: str) -> socket.socket:
    host, _colon, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise _refusal(listen, f"{port!r} is not a port from 0 to 65535")
    try:
        family, _type, _proto, _name, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _open(family, address)
    except socket.gaierror as error:
        raise _refusal(listen, f"{host!r} is not an address of this machine ({error.strerror})") from None
    except OSError as error:
        raise _refusal(listen, _reason(error)) from None


def _open(family: int, address: object) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)  # type: ignore[arg-type]  # whatever getaddrinfo gave for this family
        # At once: two sockets may be bound to a port with SO_REUSEADDR, but only one may listen.
        opened.listen(128)
    except OSError:
        opened.close()
        raise
    opened.setblocking(False)
    return opened


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is in use"
        case errno.EACCES:
            return "no permission to listen there (ports below 1024 are the system's)"
        case errno.EADDRNOTAVAIL:
            return "that address is not one of this machine"
    return os.strerror(error.errno) if error.errno else str(error)


def _refusal(listen: str, reason: str) -> ConfigError:
    return ConfigError(
        f"http.listen = {listen!r}: {reason}",
        field="http.listen",
        hint='set http.listen to a free host:port, or to "127.0.0.1:0" for any free one; `ss -ltnp` shows who listens where',
    )


def _address(name: tuple[object, ...]) -> str:
    host, port = str(name[0]), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
