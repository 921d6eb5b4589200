"""Everything that a running daemon acts on, besides its control socket: opened in order, or not at all.

Importing this loads the web server and the log, a fifth of a second on a small machine; the daemon does so when its
control socket answers already.
"""

from __future__ import annotations

import contextlib
import gc
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import msgspec

from ampd.console import Console
from ampd.control.journal import Journal
from ampd.control.link import SupervisorLink
from ampd.core.view import JobView
from ampd.job_directory import JobDirectory
from ampd.sd_notify import ServiceManager
from ampd.telemetry.http import MetricsServer

JOURNAL = "journal.jsonl"


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """What the shell carries instructions out with."""

    link: SupervisorLink
    metrics: MetricsServer
    journal: Journal
    console: Console
    manager: ServiceManager
    directory: JobDirectory


def bind(view: JobView, runtime: Path, opened: contextlib.ExitStack) -> tuple[SupervisorLink, MetricsServer]:
    """The addresses that somebody else may have; what is bound is closed with `opened`. Raises ConfigError."""
    metrics = MetricsServer(lambda: view)
    opened.callback(metrics.close)
    metrics.bind(_listen_of(view))
    link = SupervisorLink.bind(runtime)
    opened.callback(link.close)
    return link, metrics


def _listen_of(view: JobView) -> str:
    """The daemons of a job on one machine listen on ports in a row; 0 takes any free one."""
    host, _colon, port = view.config.http.listen.rpartition(":")
    return f"{host}:{int(port) + view.place.seat}" if int(port) else view.config.http.listen


def open_files(
    directory: JobDirectory, opened: contextlib.ExitStack, *, is_fresh: bool
) -> tuple[Journal, Path | None]:
    """The journal, and where `is_fresh` has put what earlier runs left."""
    aside = directory.set_aside(datetime.now(UTC)) if is_fresh else None
    journal = opened.enter_context(contextlib.closing(Journal.open(directory.path / JOURNAL)))
    return journal, aside


def open_console(view: JobView, out: TextIO, err: TextIO, opened: contextlib.ExitStack) -> Console:
    """The log or terminal, which sums the run up when it is closed."""
    console = Console(view, out, err)
    console.open()
    opened.callback(console.close)
    return console


def spare_loaded() -> None:
    """Let the garbage collector pass over what was loaded so far, which stays as long as the process does.

    It is forty thousand objects: to look at them all takes more than ten milliseconds, in which neither a command nor a
    scrape is answered, and finds nothing each time.
    """
    gc.collect()
    gc.freeze()


def service_manager() -> ServiceManager:
    """Whoever started this process, where it wants to be told."""
    return ServiceManager(os.environ)
