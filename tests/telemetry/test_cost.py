"""What a daemon costs: measured when it is asked for, and on the page."""

from __future__ import annotations

import io
import time

from prometheus_client import CollectorRegistry

from ampd.telemetry import log_lines, logs
from ampd.telemetry.collector import JobCollector
from ampd.telemetry.cost import Cost
from tests.telemetry import views


def spend(seconds: float) -> None:
    """Use the processor for so long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_processor_time_grows_by_what_was_computed() -> None:
    """It is the process's own time, which waiting does not count in."""
    before = Cost().now().cpu_seconds

    spend(0.05)

    assert Cost().now().cpu_seconds >= before + 0.05


def test_memory_grows_by_what_is_held() -> None:
    """Resident now: what is freed is no longer in it."""
    before = Cost().now().memory_bytes

    held = b"x" * (64 << 20)

    assert Cost().now().memory_bytes >= before + len(held) // 2


def test_what_was_counted_before_stays() -> None:
    """Scrapes and their seconds are the server's to count."""
    assert Cost(scrapes=3, serve_seconds=0.5).now().scrapes == 3


def test_a_page_shows_what_the_log_wrote_and_left_out() -> None:
    """By level, and by reason; the counts go on where the log goes on elsewhere."""
    logs.configure("info", "json", io.StringIO())
    before = dict(Cost().now().lines.written), dict(Cost().now().lines.left_out)
    logs.log("a.thing", "warning", {}, at=views.STARTED)
    logs.configure("info", "json", io.StringIO())
    for _ in range(21):
        logs.log("b.thing", "info", {}, at=views.STARTED)
    registry = CollectorRegistry()
    registry.register(JobCollector(views.running, cost=lambda: Cost().now()))

    def grown(name: str, label: str, value: str, base: dict[str, int]) -> float:
        return (registry.get_sample_value(name, {label: value}) or 0) - base[value]

    assert grown("ampd_log_lines_total", "level", "warning", before[0]) == 1
    assert grown("ampd_log_lines_total", "level", "info", before[0]) == 20
    assert grown("ampd_log_lines_left_out_total", "reason", "budget", before[1]) == 1


def test_a_stream_that_takes_nothing_is_counted() -> None:
    """A closed pipe stops no job, and is seen from outside."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    before = log_lines.lines().left_out["stream"]

    stream.close()
    logs.log("a.thing", "info", {}, at=views.STARTED)

    assert log_lines.lines().left_out["stream"] == before + 1
