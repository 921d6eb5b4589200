"""HTTP of the supervisor: /metrics, /healthz, /readyz, and the page at / with its /events; on its event loop. Read-only.

Importing this loads starlette, uvicorn and the Prometheus client (0.2 s on a small machine), so only the daemon's
composition root does it. What the metrics page says is collected when a snapshot arrives and not when it is asked for,
and it becomes text for the first scrape after that: the others copy bytes, so a storm of scrapes costs no more than a
page per snapshot. (To write the text at once, in both its forms, took the event loop three milliseconds four times a
second, which is what the slowest hundredth of all commands waited for; most of those pages nobody read.) Either may fail
without the job noticing: the page before stays, and the failure is logged.

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ampd.core.lifecycle import JobState
from ampd.core.view import JobView
from ampd.errors import ConfigError
from ampd.telemetry import logs
from ampd.telemetry.collector import Cost, JobCollector
from ampd.telemetry.feed import Feed
from ampd.telemetry.page import HEADERS, fragments, page

READY = frozenset({JobState.RUNNING, JobState.PAUSED, JobState.COMPLETED})
"""The states that /readyz calls ready; a completed job that is held still serves."""

LEAST_SECONDS = 0.25
"""Metrics are collected at most this often, however many snapshots and events arrive."""

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
        self._registry.register(JobCollector(view, cost=lambda: self._cost))
        self._feed = Feed(lambda: fragments(view(), time.time()))
        self._collected = _Collected([])
        self._plain = _Page(CONTENT_TYPE_PLAIN_0_0_4, generate_latest)
        self._openmetrics = _Page(openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest)
        self._built = float("-inf")
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
        self._build()
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
        """Collect the metrics anew: now, or as soon as LEAST_SECONDS have passed since it last was."""
        wait = self._built + LEAST_SECONDS - time.monotonic()
        if wait <= 0:
            self._build()
        elif self._due is None and self._server is not None:
            self._due = asyncio.get_running_loop().call_later(wait, self._build)

    def _build(self) -> None:
        self._cancel()
        self._built = time.monotonic()
        try:
            self._collected = _Collected(list(self._registry.collect()))
            self._feed.publish()
        except Exception as error:  # noqa: BLE001  # a sink: reported, and the job goes on with the page before
            logs.log("metrics.failed", "error", {"error": repr(error)}, at=time.time())
        took = time.monotonic() - self._built
        self._cost = replace(self._cost, build_seconds=self._cost.build_seconds + took)

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
        try:
            text = page.text_of(self._collected)
        except Exception as error:  # noqa: BLE001  # a sink: reported, and the job goes on with the page before
            logs.log("metrics.failed", "error", {"error": repr(error)}, at=time.time())
            text = page.text
        return Response(text, media_type=page.media_type)

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
    """An answer, and a word on how long it took until the kernel had it; the library's parsing before it is not in that."""

    def __init__(self, answer: Callable[[Request], Response], count: Callable[[float], None]) -> None:
        self._answer = answer
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        began = time.perf_counter()
        await self._answer(Request(scope))(scope, receive, send)
        self._count(time.perf_counter() - began)


class _Collected(Collector):
    """Families that were collected once, for both forms of the page."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """The same families each time."""
        return self._families


class _Page:
    """One form of the metrics page; written once for what was collected, when somebody asks."""

    def __init__(self, media_type: str, write: Callable[[Collector], bytes]) -> None:
        self.media_type = media_type
        self.text = b""
        """The last one that was written."""
        self._write = write
        self._source: Collector | None = None

    def text_of(self, collected: Collector) -> bytes:
        """What was collected, as text."""
        if self._source is not collected:
            self._source = collected
            self.text = self._write(collected)
        return self.text


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
