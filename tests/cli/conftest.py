"""A daemon for `ampctl` to find: a real control server that answers by a script."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.control.served import Script, Served

Serve = Callable[..., Served]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """AMPD_RUNTIME_DIR: empty, and short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="ampd-") as root:
        monkeypatch.setenv("AMPD_RUNTIME_DIR", root)
        yield Path(root)


@pytest.fixture
def serve(runtime: Path) -> Iterator[Serve]:
    """Starts a daemon that answers by a script: serve(script, job="bytegpt")."""
    with ExitStack() as running:

        def start(script: Script, job: str = "bytegpt") -> Served:
            return running.enter_context(Served(runtime / job, script))

        yield start


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Children that take SIGINT, even where the tests themselves run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
