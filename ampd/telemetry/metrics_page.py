"""The text of /metrics: two forms of one collection, each written when it is first asked for, and kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ampd.telemetry import logs


class Collected(Collector):
    """Families that were collected once, for both forms of the page."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """The same families each time."""
        return self._families


class Page:
    """One form of the metrics page; written once for what was collected, when somebody asks."""

    def __init__(self, media_type: str, write: Callable[[Collector], bytes]) -> None:
        self.media_type = media_type
        self.text = b""
        """The last one that was written."""
        self._write = write
        self._source: Collector | None = None

    def write(self, collected: Collector) -> None:
        """Put into text what was collected, once."""
        if self._source is not collected:
            self._source = collected
            self.text = self._write(collected)


@contextlib.contextmanager
def tolerated() -> Iterator[None]:
    """What fails in here is told, and the job goes on with the page before."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # a sink
        logs.log("metrics.failed", "error", {"error": repr(error)}, at=time.time())
