"""Where the reports of a loop go: always to Python's logging, and to an attached daemon while there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ampd.core import messages as m
from ampd.core.events import describe, level_of

_LOG = logging.getLogger("ampd")


class Reports:
    """What the engine is given to report to; for any thread that `also` is for."""

    def __init__(self) -> None:
        self.also: Callable[[m.Report], None] | None = None

    def __call__(self, report: m.Report) -> None:
        """Take one report; never waits."""
        log(report)
        if self.also is not None:
            self.also(report)


def log(report: m.Report) -> None:
    """A report as a line of Python's own logging; figures are no event."""
    if not isinstance(report, m.Snapshot):
        name, fields = describe(report)
        _LOG.log(logging.getLevelNamesMapping()[level_of(report).upper()], "%s %s", name, fields)
