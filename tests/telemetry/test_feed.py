"""`/events`: what listeners are sent, that nobody waits for them, and that they are few."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ampd.core.lifecycle import JobState
from ampd.telemetry import feed as feeds
from ampd.telemetry import http
from ampd.telemetry.feed import MOST_WAITING, Feed, Listener
from ampd.telemetry.http import MetricsServer
from ampd.telemetry.page import fragments
from tests.telemetry import views
from tests.telemetry.eventful import NOW
from tests.telemetry.test_metrics_server import serving


class Page:
    """Two sections that can be changed, and how often they were rendered."""

    def __init__(self) -> None:
        self.sections = {"a": "1", "b": "1"}
        self.renders = 0

    def render(self) -> dict[str, str]:
        self.renders += 1
        return dict(self.sections)


def frames(listener: Listener) -> list[dict[str, str]]:
    """What waits for a listener."""
    waiting = [listener.frames.get_nowait() for _ in range(listener.frames.qsize())]
    return [json.loads(frame.removeprefix(b"data: ")) for frame in waiting]


def nobody() -> None:
    """Cuts off nobody."""


def test_a_listener_is_sent_the_page_and_then_what_changes() -> None:
    """First everything, then the sections that are new, and nothing where nothing is."""
    page = Page()
    feed = Feed(page.render)
    listener = feed.join(nobody)
    page.sections["b"] = "2"
    feed.publish()
    feed.publish()

    assert frames(listener) == [{"a": "1", "b": "1"}, {"b": "2"}]


def test_who_comes_later_takes_no_change_from_the_others() -> None:
    """A change that the newcomer sees whole is sent to the others as a change."""
    page = Page()
    feed = Feed(page.render)
    first = feed.join(nobody)
    page.sections["a"] = "2"
    second = feed.join(nobody)

    assert frames(first) == [{"a": "1", "b": "1"}, {"a": "2"}]
    assert frames(second) == [{"a": "2", "b": "1"}]


def test_nothing_is_rendered_for_nobody() -> None:
    """A job that nobody looks at pays nothing."""
    page = Page()
    Feed(page.render).publish()

    assert page.renders == 0


def test_who_does_not_read_is_cut_off_and_nobody_waits() -> None:
    """A full queue ends its listener; the others go on."""
    page, cut = Page(), []
    feed = Feed(page.render)
    slow, quick = feed.join(lambda: cut.append("slow")), feed.join(lambda: cut.append("quick"))
    for number in range(MOST_WAITING + 1):
        page.sections["a"] = f"change {number}"
        frames(quick)
        feed.publish()

    assert cut == ["slow"]
    assert slow.frames.full()
    assert frames(quick) == [{"a": f"change {MOST_WAITING}"}]


def test_listeners_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a number; one that leaves makes room."""
    monkeypatch.setattr(feeds, "MOST_LISTENERS", 2)
    feed = Feed(Page().render)

    async def main() -> list[bool]:
        streams = [feed.listen(feed.join(nobody)) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        full = [feed.is_full]
        await streams[0].aclose()  # type: ignore[attr-defined]  # a generator, as StreamingResponse closes it
        return [*full, feed.is_full]

    assert asyncio.run(main()) == [True, False]


def test_in_silence_the_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung worker sends nothing: the listener asks for a new frame itself."""
    monkeypatch.setattr(feeds, "SILENCE_SECONDS", 0.01)
    page = Page()
    feed = Feed(page.render)

    async def main() -> bytes:
        stream = feed.listen(feed.join(nobody))
        await anext(stream)
        page.sections["a"] = "40 s ago"
        return await anext(stream)

    assert b"40 s ago" in asyncio.run(main())


def test_a_closed_feed_ends_its_streams_and_takes_nobody() -> None:
    """A daemon that ends does not wait for browsers."""
    feed = Feed(Page().render)

    async def main() -> list[bytes]:
        stream = feed.listen(feed.join(nobody))
        feed.close()
        return [frame async for frame in stream]

    assert len(asyncio.run(main())) == 1
    assert feed.is_full


@contextlib.asynccontextmanager
async def following(client: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The frames of /events, decoded."""
    async with client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        yield (json.loads(line.removeprefix("data: ")) async for line in lines if line)


def test_a_browser_follows_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a real socket: the whole page, then a change of state as soon as the view has it."""
    monkeypatch.setattr(http, "LEAST_SECONDS", 0)
    view = views.running()

    async def main() -> tuple[dict[str, str], dict[str, str]]:
        server = MetricsServer(lambda: view)
        async with serving(server) as client, following(client) as stream:
            first = await anext(stream)
            view.state = JobState.PAUSED
            server.refresh()
            return first, await anext(stream)

    first, second = asyncio.run(main())
    assert first.keys() == fragments(view, NOW).keys()
    assert "paused" in second["state"]
    assert "loss" not in second


def test_one_listener_too_many_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with when to try, instead of a stream that nobody feeds."""
    monkeypatch.setattr(feeds, "MOST_LISTENERS", 1)

    async def main() -> httpx.Response:
        async with serving(MetricsServer(views.running)) as client, following(client) as stream:
            await anext(stream)
            return await client.get("/events")

    answer = asyncio.run(main())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_browser_that_does_not_read_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer on the way fills up, then it is cut off; the supervisor never waited, and another may come."""
    monkeypatch.setattr(http, "LEAST_SECONDS", 0)
    monkeypatch.setattr(feeds, "MOST_LISTENERS", 1)
    view = views.running()

    async def main() -> None:
        server = MetricsServer(lambda: view)
        async with serving(server) as client:
            with socket.create_connection((client.base_url.host, client.base_url.port)) as browser:
                browser.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
                while await status_of_another(client) == 200:  # until the first one is in
                    pass
                while await status_of_another(client) == 503:
                    view.state_since += 1
                    view.state_reason = f"{view.state_since}{'b' * 1_000_000}"
                    server.refresh()
                async with asyncio.timeout(30):
                    await asyncio.to_thread(read_to_the_end, browser)

    asyncio.run(main())


def read_to_the_end(browser: socket.socket) -> None:
    """What was on its way when the connection was cut, and then that it was."""
    with contextlib.suppress(ConnectionResetError):
        while browser.recv(1_000_000):
            pass


async def status_of_another(client: httpx.AsyncClient) -> int:
    async with client.stream("GET", "/events") as answer:
        return answer.status_code


def test_open_streams_do_not_delay_the_end() -> None:
    """Closing the server ends the streams, so that a daemon leaves at once though somebody watches."""

    async def main() -> list[dict[str, Any]]:
        server = MetricsServer(views.running)
        async with serving(server) as client, following(client) as stream:
            await anext(stream)
            server.close()
            return [frame async for frame in stream]

    assert asyncio.run(main()) == []
