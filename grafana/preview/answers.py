"""A dashboard's queries, asked: the variables that Grafana would fill in are filled in here, for all jobs."""

from __future__ import annotations

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from typing import Any

POINTS = 110
"""Steps of a curve: about one for every third pixel of a panel of half a sheet."""

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """One series with the name that its query gives it; an instant one has a single point."""

    name: str
    labels: dict[str, str]
    points: Points

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


@dataclass(frozen=True, slots=True)
class Server:
    """A Prometheus, and the stretch of time that is drawn (Unix seconds)."""

    url: str
    begin: float
    end: float
    scrape: float
    matchers: tuple[tuple[str, str], ...] = ()
    """Values of variables; `.+` for the others, which is what "All" is."""

    @property
    def step(self) -> float:
        """Seconds between two points of a curve."""
        return max(self.scrape, (self.end - self.begin) / POINTS)

    def over_time(self, expr: str, legend: str) -> list[Series]:
        """A range query. Raises ValueError with Prometheus's words where it refuses the query."""
        asked = {"query": self.fill(expr), "start": self.begin, "end": self.end, "step": self.step}
        found = _ask(f"{self.url}/api/v1/query_range", asked)
        return [_series(one["metric"], one["values"], legend) for one in found]

    def at_end(self, expr: str, legend: str) -> list[Series]:
        """An instant query at the end of the stretch. Raises ValueError as `over_time` does."""
        found = _ask(f"{self.url}/api/v1/query", {"query": self.fill(expr), "time": self.end})
        return [_series(one["metric"], [one["value"]], legend) for one in found]

    def of_all(self) -> Server:
        """The same, with "All" chosen everywhere."""
        return replace(self, matchers=())

    def fill(self, expr: str) -> str:
        """The expression with its variables filled in, as Grafana does."""
        interval = max(self.step + self.scrape, 4 * self.scrape)
        known = {
            "__rate_interval": f"{math.ceil(interval)}s",
            "__range": f"{math.ceil(self.end - self.begin)}s",
        }
        known |= dict(self.matchers)
        return re.sub(r"\$(\w+)", lambda found: known.get(found[1], ".+"), expr)


def _series(labels: dict[str, str], values: list[list[Any]], legend: str) -> Series:
    named = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)
    finite = [(float(at), float(value)) for at, value in values if math.isfinite(float(value))]
    return Series(named.strip() or "value", labels, finite or [(float(values[-1][0]), 0.0)])


def _ask(url: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    body = urllib.parse.urlencode(asked).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=30) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise ValueError(f"{asked['query']}: {json.load(error).get('error')}") from None
    result: list[dict[str, Any]] = found["data"]["result"]
    return result
