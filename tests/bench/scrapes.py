"""What it costs to be scraped: ten times a second, by a client that keeps its connection as Prometheus does.

The daemon and its worker are those of `control`: the worker alone on the first core, the supervisor and the scraper on the
last. A window is compared in pairs of neighbouring turns with and without scrapes. Eight ranks are one worker with
eight links, each of which pushes the snapshots of the loop as a rank's own: to the supervisor they are eight.

`python -m tests.bench.scrapes` writes SCRAPES.md beside this file, in about three minutes.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ampd.control.client import Client
from ampd.core import protocol as p
from tests.bench import report
from tests.bench.control import Job, job
from tests.bench.load import median, milliseconds, take_precedence

RESULTS = Path(__file__).with_name("SCRAPES.md")
PER_SECOND = 10
TURN_SECONDS = 1.5
WINDOW_SECONDS = 0.005
RANKS = (1, 8)


class Scraper:
    """A connection to /metrics, and what its scrapes took."""

    def __init__(self, running: Job) -> None:
        status = Client(running.endpoint).ask(p.Status(), 10.0).result
        self._connection = http.client.HTTPConnection(str(status["http"]), timeout=10)
        self.waits: list[float] = []
        self.size = 0

    def drive(self, seconds: float) -> None:
        """Scrape for so long, each time when it is due."""
        begin = time.monotonic()
        for number in range(round(seconds * PER_SECOND)):
            time.sleep(max(0.0, begin + number / PER_SECOND - time.monotonic()))
            self.scrape()
        time.sleep(max(0.0, begin + seconds - time.monotonic()))

    def scrape(self) -> None:
        """One page, read to its end."""
        begin = time.monotonic()
        self._connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
        self.size = len(self._connection.getresponse().read())
        self.waits.append(time.monotonic() - begin)


def measure(ranks: int, pairs: int) -> str:
    """The figures with so many ranks."""
    with job(WINDOW_SECONDS, Path(tempfile.gettempdir()), "--ranks", str(ranks)) as running:
        scraper = Scraper(running)
        rows = list(_rows(running, scraper, pairs))
    return f"## {ranks} rank{'s' * (ranks > 1)}\n\n{report.table(['figure', 'value'], rows)}"


def _rows(running: Job, scraper: Scraper, pairs: int) -> Iterator[list[str]]:
    ratios, quiet, scraped = [], [], []
    for number in range(pairs):
        medians = {}
        for is_scraped in (False, True) if number % 2 else (True, False):
            begin = time.monotonic()
            scraper.drive(TURN_SECONDS) if is_scraped else time.sleep(TURN_SECONDS)
            medians[is_scraped] = statistics.median(running.windows(begin, begin + TURN_SECONDS))
        quiet.append(medians[False])
        scraped.append(medians[True])
        ratios.append(medians[True] / medians[False])
    yield ["window without scrapes, ms, median", f"{1000 * median(quiet):.3f}"]
    yield [f"window with {PER_SECOND} scrapes a second, ms, median", f"{1000 * median(scraped):.3f}"]
    yield [f"ratio over {pairs} pairs", report.spread(ratios, 4)]
    count = len(scraper.waits)
    yield [
        f"a scrape of {scraper.size} bytes, ms, p50 / p99 / longest of {count}",
        milliseconds(scraper.waits),
    ]


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scrapes", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    take_precedence()
    load = os.getloadavg()[0]
    sections = [measure(ranks, arguments.pairs) for ranks in RANKS]
    head = "\n".join(
        (
            "# What it costs to be scraped",
            "",
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{shlex.join(['python', '-m', 'tests.bench.scrapes', *sys.argv[1:]])}`",
            f"- {report.processor()}, {len(cores)} cores; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after",
            f"- the worker on core {cores[0]}, daemon and scraper on core {cores[-1]}; nice {os.nice(0)}",
        )
    )
    text = "\n\n".join([head, *sections]) + "\n"
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
