"""A short directory for sockets: pytest's own is often too long for a unix socket's path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    """A runtime directory that does not exist yet, in a short directory that does."""
    with tempfile.TemporaryDirectory(prefix="ampd-") as root:
        yield Path(root) / "job"
