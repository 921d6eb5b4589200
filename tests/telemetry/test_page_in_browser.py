"""The status page in a real Chromium: it obeys its own policy, follows the job, fits every width, and is drawn."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ampd.core.lately import Lately
from ampd.core.ledger import Counts
from ampd.core.lifecycle import JobState
from ampd.core.view import JobView
from ampd.telemetry.http import MetricsServer
from tests.control.served import LoopThread
from tests.telemetry import views
from tests.telemetry.browser import Browser, Theme, needs_browser
from tests.telemetry.eventful import eventful

LIVE = "document.getElementById('link').textContent === 'live'"
GROUND = "getComputedStyle(document.body).backgroundColor"


class Page:
    """A page that is served for real; `change` is made on the server's thread, and told."""

    def __init__(self, view: JobView, loop: LoopThread, server: MetricsServer) -> None:
        self.view, self._loop, self._server = view, loop, server
        self.address = f"http://{server.address}/"

    def becomes(self, state: JobState) -> None:
        """Move the job, as the supervisor does."""

        def move() -> None:
            self.view.state = state
            self._server.refresh()

        self._loop.call(move)


@contextmanager
def served(view: JobView) -> Iterator[Page]:
    """The page of a view."""
    with LoopThread() as loop:
        server = MetricsServer(lambda: view)
        loop.call(server.bind, "127.0.0.1:0")
        ended = loop.begin(server.serve())
        try:
            yield Page(view, loop, server)
        finally:
            loop.call(server.close)
            ended()


@needs_browser
def test_the_page_follows_the_job_and_asks_nobody_else() -> None:
    """The script runs under the policy, a change of state is seen, and every request is for one of our two paths."""
    with served(eventful()) as page, Browser() as browser:
        browser.open(page.address)
        browser.waits_for(LIVE)
        page.becomes(JobState.PAUSED)
        browser.waits_for("document.title.includes('paused')")

        assert set(browser.requests) - {"data:,"} == {page.address, f"{page.address}events"}
        assert browser.complaints == []


@needs_browser
def test_the_page_is_whole_without_a_script() -> None:
    """With JavaScript off every figure and curve is there, and how to get newer ones is said."""
    with served(eventful()) as page, Browser() as browser:
        browser.open(page.address, scripts=False)

        assert "shown as it was" in browser.value("document.body.innerText")
        assert "load it again" in browser.value("document.body.innerText")
        assert browser.value("document.querySelectorAll('path.line').length") == 3
        assert browser.complaints == []


@needs_browser
def test_a_page_whose_daemon_goes_says_so() -> None:
    """Old figures must not look live."""
    with Browser() as browser:
        with served(eventful()) as page:
            browser.open(page.address)
            browser.waits_for(LIVE)
        browser.waits_for("document.getElementById('link').textContent.startsWith('not live')")


@needs_browser
def test_selected_text_stays_until_it_is_copied() -> None:
    """A frame does not take away what somebody has just selected."""
    with served(eventful()) as page, Browser() as browser:
        browser.open(page.address)
        browser.waits_for(LIVE)
        browser.value("getSelection().selectAllChildren(document.querySelector('#state h1'))")
        page.becomes(JobState.PAUSED)
        page.becomes(JobState.FAILED)

        assert "running" in browser.value("String(getSelection())")


@needs_browser
def test_nothing_moves_when_figures_come() -> None:
    """From a job that has just begun to one with a story: what is above the events keeps its place and its size."""
    boxes = "[...document.querySelectorAll('section')].map(section => section.offsetTop)"
    with Browser() as browser:
        tops = []
        for view in (views.starting(), eventful()):
            with served(view) as page:
                browser.open(page.address)
                tops.append(browser.value(boxes))

    assert tops[0] == tops[1]


@needs_browser
def test_the_keyboard_reaches_every_link_and_shows_where_it_is() -> None:
    """Tab goes to the skip link first, then through the links, each with an outline."""
    with served(eventful()) as page, Browser() as browser:
        browser.open(page.address)
        reached = []
        for _ in range(4):
            browser.press("Tab")
            reached.append(browser.value("document.activeElement.getAttribute('href')"))

        assert reached == ["#content", "/metrics", "/healthz", "/readyz"]
        assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def in_trouble() -> JobView:
    """A job whose loss scale is at its floor and whose windows fall back: two alerts at the hour of the browser's clock."""
    view = eventful()
    view.snapshots = {0: views.snapshot(window=2399, total_windows=4000, scale=1.0)}
    view.lately = Lately()
    now = time.time()
    for ago, windows, fallbacks in ((300, 0, 0), (1, 1000, 200)):
        view.lately.add(now - ago, Counts(windows=windows, fp32_fallbacks={"scale": fallbacks}))
    return view


@needs_browser
@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_and_is_in_its_theme(width: int, theme: Theme, tmp_path: Path) -> None:
    """Nothing is scrolled sideways, no word is cut off, the ground is that of the theme, and a picture is taken."""
    cut_off = "[...document.querySelectorAll('h1,h2,p,li,th,td')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    with served(in_trouble()) as page, Browser() as browser:
        browser.open(page.address, width=width, theme=theme)
        browser.waits_for(LIVE)
        assert browser.value("document.getElementById('alerts').innerText").count("ampctl explain") == 2
        png = browser.picture(tmp_path / f"page-{width}-{theme}.png")

        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value(cut_off) == 0
        assert browser.value(GROUND) == {"light": "rgb(244, 246, 248)", "dark": "rgb(14, 18, 22)"}[theme]
    assert struct.unpack(">I", png[16:20]) == (width,)
