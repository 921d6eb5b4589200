"""The runbooks of the alerts: one Markdown file for each, the same that an alert's link leads to.

They are written once, beside the rules in `grafana/runbooks`, and come into the installed package as `ampd/runbooks`;
a checkout reads them where they are written.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import ampd


def names() -> list[str]:
    """The alerts that have a runbook, which are all of them."""
    return sorted(
        page.name.removesuffix(".md") for page in _folder().iterdir() if page.name.startswith("Ampd")
    )


def runbook(alert: str) -> str:
    """What to do about an alert, as Markdown; raises KeyError where there is no such alert."""
    if alert not in names():
        raise KeyError(alert)
    return (_folder() / f"{alert}.md").read_text(encoding="utf-8")


def _folder() -> Traversable:
    shipped = files(ampd) / "runbooks"
    return shipped if shipped.is_dir() else Path(ampd.__file__).parents[1] / "grafana" / "runbooks"
