"""The headline, end to end: fallbacks, a real Prometheus with our rules, a real Alertmanager, a webhook."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from ampd.core.ledger import Counts
from ampd.core.view import JobView
from ampd.telemetry.http import MetricsServer
from grafana.generate.outputs import dashboards
from tests.telemetry import views
from tests.telemetry.servers import alertmanager, needs_servers, prometheus, rules_at, webhook

SCALE = 60


class FallingBack:
    """A served job of 100 windows a second, of which one in ten falls back."""

    def __init__(self) -> None:
        self._view = views.starting()
        self._server = MetricsServer(lambda: self._view)
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server.bind("127.0.0.1:0")
        self.address = self._server.address

    def run(self) -> None:
        """Serve until `stop`; the body of a thread."""
        asyncio.run(self._serve())

    def stop(self) -> None:
        """End `run`; from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self._server.serve())
        windows = 0
        while not self._stop.is_set():
            self._view = _at(windows)
            self._server.refresh()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.1)
            windows += 10
        self._server.close()
        await serving


def _at(windows: int) -> JobView:
    fallbacks = {"forward": windows // 10} if windows else {}
    counts = Counts(windows=windows, applied=windows, low_precision=windows, fp32_fallbacks=fallbacks)
    return views.running(snapshots={0: views.snapshot(window=windows, counts=counts, job=counts)})


@contextlib.contextmanager
def _falling_back() -> Iterator[str]:
    job = FallingBack()
    thread = threading.Thread(target=job.run)
    thread.start()
    try:
        yield job.address
    finally:
        job.stop()
        thread.join()


@needs_servers
def test_a_fallback_spike_goes_from_pending_to_firing_and_reaches_the_webhook(tmp_path: Path) -> None:
    """The shipped rule, 60 times faster, with the runbook in the message that a person gets."""
    rules = rules_at(tmp_path, SCALE)

    with (
        _falling_back() as job,
        webhook() as hook,
        alertmanager(tmp_path, hook.url) as pager,
        prometheus(tmp_path, targets=[job], rules=rules, alertmanager=pager.address) as server,
    ):
        server.wait_for_alert("AmpdFallbackSpike", "pending", seconds=20)
        server.wait_for_alert("AmpdFallbackSpike", "firing", seconds=15)
        alert = hook.wait_for("AmpdFallbackSpike", seconds=10)

    assert alert["status"] == "firing"
    assert alert["labels"]["instance"] == job
    assert "10" in alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"].endswith("AmpdFallbackSpike.md")


@needs_servers
def test_every_panel_and_annotation_query_runs_on_a_real_prometheus(tmp_path: Path) -> None:
    """Grafana would show "No data" or an error without a word; here each query must succeed and give something."""
    with _falling_back() as job, prometheus(tmp_path, targets=[job]) as server:
        server.wait_for_series("rate(ampd_windows_total[5s]) > 0", seconds=20)
        server.wait_for_series("avg_over_time(rate(ampd_windows_total[5s])[30s:]) > 0", seconds=20)
        empty = {title for title, expr in _queries() if not server.query(_filled(expr))}

    # No rules are loaded here, so nothing fires. The scripted job is well, was neither asked nor changed, saves nothing, has no
    # tokens, tells no events, times no window and does not say what its time went into; no log, no limit of memory, no count of
    # operations, no sum of losses, no device, no other rank. What processors take is told by some machines only.
    assert empty - {"Power of processors"} == {
        "Alerts over time", "Alerts", "Configuration changes", "Precision changes", "Worker restarts", "Fallback limit passed", "Checkpoints",
        "Requests", "Refusals", "Samples and tokens", "Waiting for data", "Seconds in this period", "Time by state", "Events",
        "Goodput", "Goodput now", "Goodput by job", "Slowest windows", "Log lines", "Share of the memory limit",
        "Work in low precision", "Model FLOPs utilisation", "Within a window", "Work by rank", "Loss", "Devices",
    }  # fmt: skip


def _queries() -> list[tuple[str, str]]:
    panels = [(p["title"], t["expr"]) for d in dashboards() for p in d["panels"] for t in p["targets"]]
    marks = [(a["name"], a["expr"]) for d in dashboards() for a in d["annotations"]["list"] if "expr" in a]
    return panels + marks


def _filled(expr: str) -> str:
    for name, value in (
        ("$__rate_interval", "5s"),
        ("$__range", "30s"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$rank", ".+"),
    ):
        expr = expr.replace(name, value)
    return expr
