"""The HTTP server over real sockets: pages, probes, refusals, and what it leaves alone."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import httpx
import pytest
from prometheus_client.openmetrics import exposition
from prometheus_client.registry import Collector

from ampd.core.lifecycle import JobState
from ampd.core.view import JobView
from ampd.errors import ConfigError
from ampd.telemetry import http, logs
from ampd.telemetry.http import MetricsServer
from tests.telemetry import views

_T = TypeVar("_T")


@contextlib.asynccontextmanager
async def serving(server: MetricsServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that runs on a free port of loopback."""
    server.bind("127.0.0.1:0")
    task = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False) as client:
        yield client
    server.close()
    await task


def ask(view: JobView, question: Callable[[httpx.AsyncClient], Awaitable[_T]]) -> _T:
    """The answer of a server of this view."""

    async def main() -> _T:
        async with serving(MetricsServer(lambda: view)) as client:
            return await question(client)

    return asyncio.run(main())


def get(view: JobView, path: str, **headers: str) -> httpx.Response:
    """GET a path of a server of this view."""
    return ask(view, lambda client: client.get(path, headers=headers))


def test_metrics_are_text_unless_openmetrics_is_asked_for() -> None:
    """A browser gets text, a Prometheus what it prefers."""
    plain = get(views.running(), "/metrics")
    strict = get(
        views.running(), "/metrics", accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    )

    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "ampd_windows_total 400.0" in plain.text
    assert strict.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert strict.text.endswith("# EOF\n")


@pytest.mark.parametrize("state", JobState)
def test_readyz_tells_whether_the_job_serves(state: JobState) -> None:
    """Running, paused and completed are ready; any other state is 503 and says which."""
    answer = get(views.running(state=state), "/readyz")

    is_ready = state in ("running", "paused", "completed")
    assert (answer.status_code, answer.text) == (200 if is_ready else 503, f"{state}\n")


def test_healthz_is_well_even_where_the_job_has_failed() -> None:
    """A probe that restarted the daemon because its job failed would hide the failure."""
    assert get(views.running(state=JobState.FAILED), "/healthz").status_code == 200


def test_nothing_can_be_changed_over_http() -> None:
    """POST is refused everywhere, and unknown paths are not found."""
    assert ask(views.running(), lambda client: client.post("/metrics")).status_code == 405
    assert get(views.running(), "/nothing").status_code == 404


def test_the_page_comes_with_its_policy() -> None:
    """Style and script are allowed by their hash and nothing else is; the page is never kept by a cache."""
    answer = get(views.running(), "/")

    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_a_scrape_shows_what_held_at_the_last_refresh() -> None:
    """Metrics are collected anew after a snapshot, not whenever somebody asks."""
    view = views.running()

    async def question(client: httpx.AsyncClient) -> str:
        await client.get("/healthz")
        view.levels = {"info": 1000}
        return (await client.get("/metrics")).text

    assert 'ampd_events_total{level="info"} 17.0' in ask(view, question)


def test_many_refreshes_build_few_pages_and_the_last_one_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of events costs one page now and one when its time has come."""
    monkeypatch.setattr(http, "LEAST_SECONDS", 0.2)
    view, reads = views.running(), 0

    def look() -> JobView:
        nonlocal reads
        reads += 1
        return view

    async def main() -> str:
        server = MetricsServer(look)
        async with serving(server) as client:
            for number in range(100, 201):
                view.levels = {"info": number}
                server.refresh()
                await asyncio.sleep(0)
            return await _until(client, 'ampd_events_total{level="info"} 200.0')

    asyncio.run(main())
    assert (
        reads <= 10
    )  # at start, after the burst, and within it where that takes a busy machine longer than a page's time


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_a_storm_of_scrapes_writes_one_page(accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is made for the first who asks after a refresh, and never where nobody does."""
    monkeypatch.setattr(http, "LEAST_SECONDS", 0)
    written = list[bytes]()
    for module in (http, exposition):

        def write(collected: Collector, real: Callable[[Collector], bytes] = module.generate_latest) -> bytes:
            written.append(real(collected))
            return written[-1]

        monkeypatch.setattr(module, "generate_latest", write)

    async def main() -> list[str]:
        server = MetricsServer(views.running)
        async with serving(server) as client:
            for _ in range(3):
                server.refresh()
            return [(await client.get("/metrics", headers={"accept": accept})).text for _ in range(5)]

    pages = asyncio.run(main())
    assert len(written) == 1
    assert pages == [pages[0]] * 5 != [""] * 5


def test_a_page_that_cannot_be_written_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that the library cannot put into words: the scrape gets the last page, and the log says so."""
    monkeypatch.setattr(http, "LEAST_SECONDS", 0)
    log = io.StringIO()
    logs.configure("info", "json", log)
    view = views.running()

    async def main() -> list[httpx.Response]:
        server = MetricsServer(lambda: view)
        async with serving(server) as client:
            answers = [await client.get("/metrics")]
            view.levels = {"info": "many"}  # type: ignore[dict-item]  # breaks on purpose
            server.refresh()
            answers.append(await client.get("/metrics"))
        return answers

    before, after = asyncio.run(main())
    assert (after.status_code, after.text) == (200, before.text)
    assert '"event":"metrics.failed"' in log.getvalue()


async def _until(client: httpx.AsyncClient, line: str) -> str:
    async with asyncio.timeout(10):
        while line not in (page := (await client.get("/metrics")).text):
            await asyncio.sleep(0.01)
    return page


def test_a_flood_of_connections_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections must not use up the files that the supervisor may have open."""
    monkeypatch.setattr(http, "_MOST_CONNECTIONS", 3)

    async def question(client: httpx.AsyncClient) -> int:
        idle = [await asyncio.open_connection(client.base_url.host, client.base_url.port) for _ in range(3)]
        answer = await client.get("/healthz")
        for _reader, writer in idle:
            writer.close()
            await writer.wait_closed()
        return answer.status_code

    assert ask(views.running(), question) == 503


def test_the_page_tells_what_pages_have_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own overhead is itself a metric: 0 on the first page, and the cost of the pages before on any other."""
    monkeypatch.setattr(http, "LEAST_SECONDS", 0)

    async def main() -> list[float]:
        server = MetricsServer(views.running)
        async with serving(server) as client:
            pages = [(await client.get("/metrics")).text]
            server.refresh()
            pages.append((await client.get("/metrics")).text)
        return [
            float(page.split('\nampd_telemetry_seconds_total{work="build"} ')[1].split("\n")[0])
            for page in pages
        ]

    first, second = asyncio.run(main())
    assert second > first == 0


def test_each_scrape_is_counted_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What scrapers cost is itself a metric; other pages are no scrapes."""
    monkeypatch.setattr(http, "LEAST_SECONDS", 0)

    async def main() -> str:
        server = MetricsServer(views.running)
        async with serving(server) as client:
            for path in ("/metrics", "/metrics", "/healthz"):
                await client.get(path)
            server.refresh()
            return (await client.get("/metrics")).text

    page = asyncio.run(main())
    assert "\nampd_scrapes_total 2.0\n" in page
    assert float(page.split('ampd_telemetry_seconds_total{work="serve"} ')[1].split("\n")[0]) > 0


def test_a_page_that_cannot_be_built_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry may fail without the job noticing: /metrics goes on with what it had, and the log says so."""
    monkeypatch.setattr(http, "LEAST_SECONDS", 0)
    log = io.StringIO()
    logs.configure("info", "json", log)
    view: JobView | None = views.running()

    async def main() -> httpx.Response:
        nonlocal view
        server = MetricsServer(lambda: view)  # type: ignore[arg-type, return-value]  # breaks on purpose
        async with serving(server) as client:
            await client.get("/healthz")
            view = None
            server.refresh()
            return await client.get("/metrics")

    answer = asyncio.run(main())
    assert "ampd_windows_total 400.0" in answer.text
    assert '"event":"metrics.failed"' in log.getvalue()


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        ("127.0.0.1:99999", "not a port"),
        ("192.0.2.1:0", "not one of this machine"),
        ("no-such-host.invalid:0", "not an address"),
    ],
)
def test_an_address_that_cannot_be_had_is_refused_by_name(listen: str, reason: str) -> None:
    """The message has the key, what was given and why."""
    with pytest.raises(ConfigError, match=reason) as caught:
        MetricsServer(views.running).bind(listen)

    assert caught.value.field == "http.listen"
    assert listen in str(caught.value)


def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    """Two daemons on one port: the second says so at once, before anything is started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"

        with pytest.raises(ConfigError, match="the port is in use") as caught:
            MetricsServer(views.running).bind(listen)

    assert "127.0.0.1:0" in caught.value.hint


def test_closing_before_serving_frees_the_port() -> None:
    """A daemon that fails while it starts leaves nothing behind."""
    first = MetricsServer(views.running)
    first.bind("127.0.0.1:0")
    listen = first.address
    first.close()

    second = MetricsServer(views.running)
    second.bind(listen)

    assert second.address == listen
    second.close()


def test_a_server_that_was_closed_does_not_begin() -> None:
    """A daemon that ends while its tasks are still waiting for their turn."""
    server = MetricsServer(views.running)
    server.bind("127.0.0.1:0")
    server.close()

    asyncio.run(server.serve())

    assert server.address == ""


def test_ipv6_addresses_are_written_with_brackets() -> None:
    """An address that is shown can be pasted into a URL."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    server = MetricsServer(views.running)
    try:
        server.bind("[::1]:0")
    except ConfigError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")

    assert server.address.startswith("[::1]:")
    server.close()


def test_signals_stay_the_daemons_own(capfd: pytest.CaptureFixture[str]) -> None:
    """Serving installs no signal handler, writes nothing to the terminal, and a stop closes the port."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def question(client: httpx.AsyncClient) -> list[object]:
        await client.get("/healthz")
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    during = ask(views.running(), question)

    # asyncio.run has its own handler for SIGINT while it runs; uvicorn's would be a bound method of its server.
    assert during[1] == before[1]
    assert "uvicorn" not in repr(during[0])
    assert capfd.readouterr() == ("", "")


def test_a_cancelled_server_frees_its_port() -> None:
    """A daemon that ends without `close` leaks no socket (a leak would be a warning, and so an error)."""

    async def main() -> str:
        server = MetricsServer(views.running)
        server.bind("127.0.0.1:0")
        listen = server.address
        task = asyncio.create_task(server.serve())
        async with httpx.AsyncClient(base_url=f"http://{listen}", trust_env=False) as client:
            await client.get("/healthz")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return listen

    listen = asyncio.run(main())
    again = MetricsServer(views.running)
    again.bind(listen)
    again.close()
