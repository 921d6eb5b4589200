"""Ranks that are gone without a word, seen by their processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ampd.control.lifeline import PulsePage
from ampd.core.phase import Phase
from ampd.presence import Presence


@pytest.fixture
def page(tmp_path: Path) -> Iterator[PulsePage]:
    """The supervisor's side, and a rank that has declared itself."""
    made = PulsePage.make(tmp_path)
    rank = PulsePage.open(f"ipc://{tmp_path / 'link.sock'}")
    rank.declare(Phase.WINDOW)
    yield made
    rank.close()
    made.close()


def ended() -> int:
    """The number of a process that was there and is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_rank_is_missed_at_the_second_look(page: PulsePage) -> None:
    """One look may come between the end of ranks and that of their agent."""
    presence = Presence(page)
    presence.meet(0, ended())

    assert [presence.gone() for _ in range(3)] == [(), (0,), (0,)]


def test_a_rank_that_is_there_is_not_missed(page: PulsePage, tmp_path: Path) -> None:
    """Nor one that takes the place of another."""
    presence = Presence(page)
    presence.meet(0, ended())
    presence.gone()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        presence.meet(0, process.pid)

        assert [presence.gone() for _ in range(3)] == [(), (), ()]
        process.kill()


def test_a_rank_that_said_so_is_not_missed(page: PulsePage, tmp_path: Path) -> None:
    """It has withdrawn its pulse."""
    presence = Presence(page)
    presence.meet(0, ended())
    PulsePage.open(f"ipc://{tmp_path / 'link.sock'}").withdraw()

    assert [presence.gone() for _ in range(3)] == [(), (), ()]
