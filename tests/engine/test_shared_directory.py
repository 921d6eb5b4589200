"""The job directory has to be one directory on all nodes: found out at the start, not at the first resume."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from ampd.engine import shared_directory
from ampd.engine.ranks import Alone
from ampd.engine.shared_directory import require_shared
from ampd.errors import ConfigError


class Peered(Alone):
    """Rank 0 beside a rank on another node, which says `heard` of itself."""

    world = 2

    def __init__(self, heard: bytes) -> None:
        super().__init__()
        self._heard = heard

    def gather(self, content: bytes) -> list[bytes]:
        """Both."""
        return [content, self._heard]


class Elsewhere(Alone):
    """Rank 1, whose rank 0 writes into a directory that is not ours."""

    rank, world = 1, 2

    def spread(self, content: bytes) -> bytes:
        """What rank 0 made there."""
        return b".seen-by-all-there"


def test_a_directory_that_all_see_is_left_as_it_was(tmp_path: Path) -> None:
    """The mark goes when everybody has looked."""
    require_shared(tmp_path, Peered(heard=b""))

    assert os.listdir(tmp_path) == []


def test_every_rank_hears_which_node_is_blind(tmp_path: Path) -> None:
    """So that the leader fails with the reason too, and leaves nothing behind."""
    with pytest.raises(ConfigError, match="is not seen on gpu2") as caught:
        require_shared(tmp_path, Peered(heard=b"gpu2"))

    assert caught.value.field == "job.directory"
    assert os.listdir(tmp_path) == []


def test_a_rank_that_sees_nothing_names_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for a while, since a network file system may be late."""
    monkeypatch.setattr(shared_directory, "_APPEARS_SECONDS", 0.0)

    with pytest.raises(ConfigError, match=f"is not seen on {socket.gethostname()}"):
        require_shared(tmp_path, Elsewhere())


def test_a_mark_that_comes_late_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over NFS."""
    late = tmp_path / ".seen-by-all-there"
    monkeypatch.setattr(time, "sleep", lambda _seconds: late.touch())

    require_shared(tmp_path, Elsewhere())


def test_a_directory_that_cannot_be_written_is_seen_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 says so instead of leaving the others to wait for it."""
    monkeypatch.setattr(shared_directory, "_APPEARS_SECONDS", 0.0)

    with pytest.raises(ConfigError, match="not the same directory"):
        require_shared(tmp_path / "missing", Peered(heard=b""))
