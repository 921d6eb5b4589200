"""Puts the process's log back after each test: where lines go is a fact of the process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ampd.telemetry import logs


@pytest.fixture(autouse=True)
def _log_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_output", None)
    yield
