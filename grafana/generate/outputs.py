"""Everything that is generated, as file names and texts; a test holds the files that are checked in to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grafana.generate import cases, rules
from grafana.generate.fleet import fleet
from grafana.generate.overview import overview
from grafana.generate.pace import Pace
from grafana.generate.performance import performance
from grafana.generate.precision import precision
from grafana.generate.yaml import to_yaml

HOME = Path(__file__).resolve().parent.parent
RUNBOOKS = "grafana/runbooks"
_HEAD = "Made by `python -m grafana.generate`; change that, not this."


def outputs(pace: Pace, runbooks: str) -> Mapping[str, str]:
    """Texts by path. Dashboards and rule tests do not know of a scale: they are made at scale 1 only."""
    made = {"prometheus/rules.yml": to_yaml(rules.document(pace, runbooks), head=_HEAD)}
    if pace.scale == 1:
        made["prometheus/tests/alerts.yml"] = to_yaml(cases.document(runbooks, cases.cases()), head=_HEAD)
        made |= {f"dashboards/{each['uid']}.json": json.dumps(each, indent=2) + "\n" for each in dashboards()}
    return made


def dashboards() -> list[dict[str, Any]]:
    """The four, in the order in which one reads them."""
    return [overview(), precision(), performance(), fleet()]


def write(directory: Path, pace: Pace, runbooks: str) -> list[Path]:
    """Write every output below `directory` and return their paths."""
    paths = []
    for name, text in outputs(pace, runbooks).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def stale(directory: Path, pace: Pace, runbooks: str) -> list[str]:
    """The outputs below `directory` that are missing or are not what would be written now."""
    wanted = outputs(pace, runbooks)
    return [name for name, text in wanted.items() if not _holds(directory / name, text)]


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
