"""Jobs in short directories (a unix socket's path has 107 bytes), whose processes are gone when a test is over."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.daemons import Job


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="ampd-") as directory:
        yield Path(directory)


@pytest.fixture
def job(home: Path) -> Iterator[Job]:
    """A job that any number of daemons may be started on."""
    made = Job(home)
    yield made
    made.clean()
