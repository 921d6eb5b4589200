"""The parts of the benchmark of kills that could flatter somebody: who is told saved, what is newest, what a row says."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench import survival
from tests.bench.savers import BEGINS, ByHand, Distributed, Store, Tell, TorchSave
from tests.bench.victims import Forked, Victim


def test_what_was_told_before_the_kill_counts(tmp_path: Path) -> None:
    """A save that was called done while nobody listened must load, too."""

    def work(tell: Tell) -> None:
        for step in range(1, 4):
            tell(BEGINS)
            tell(step)
        (tmp_path / "told").touch()
        threading.Event().wait()

    victim = Forked(work, tmp_path / "log")
    assert victim.saved() == 1
    while not (tmp_path / "told").exists():
        os.sched_yield()

    assert victim.kill() == 3


def test_a_run_that_ends_by_itself_is_no_survivor(tmp_path: Path) -> None:
    """Its library failed before anybody killed it: the benchmark stops there."""
    victim = Forked(lambda _tell: None, tmp_path / "log")

    with pytest.raises(AssertionError, match="the run ended by itself"):
        victim.saved()

    victim.kill()


def test_an_error_is_told_without_what_differs_from_run_to_run(tmp_path: Path) -> None:
    """Errors of one kind are counted as one."""

    def work(_tell: Tell) -> None:
        raise ValueError(f"no file '{tmp_path}/checkpoint-17/model' of 123 bytes\nand more")

    with pytest.raises(RuntimeError):
        Forked(work, tmp_path / "log").ends()

    assert (tmp_path / "log.why").read_text() == "ValueError: no file 'model' of N bytes"


@pytest.mark.parametrize(
    "store",
    [TorchSave, lambda: Distributed(is_one=True), lambda: Distributed(is_one=False, trusts_metadata=True)],
    ids=["torch.save", "DCP in one", "DCP in many"],
)
@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning"
)  # of torch.distributed, about itself
def test_a_peer_goes_on_where_it_was(store: Callable[[], Store], tmp_path: Path) -> None:
    """Nobody fails for the way in which it is asked."""
    told: list[int] = []
    ByHand(store()).storm(tmp_path, told.append, last=3)

    ByHand(store()).go_on(tmp_path, told.append)

    assert [step for step in told if step != BEGINS] == [1, 2, 3, 3, 4]


class Scripted:
    """A contestant that loads what it is told to."""

    def __init__(self, loads: int = 0, complaint: str = "") -> None:
        self._loads, self._complaint = loads, complaint
        self.count = 0

    def begin(self, home: Path) -> Victim:
        return self

    def begins(self) -> None:
        """At once."""

    def saved(self) -> int:
        self.count += 1
        return self.count

    def kill(self) -> int:
        return 7

    def go_on(self, home: Path) -> int:
        if self._complaint:
            raise RuntimeError(self._complaint)
        return self._loads

    def losses(self, home: Path, *, is_cut: bool) -> list[str]:
        return ["a", "b" if is_cut else "c"]


@pytest.mark.parametrize(
    ("contestant", "outcome"),
    [
        (Scripted(7), ""),
        (Scripted(8), ""),
        (Scripted(6), "an older state was loaded, without an error"),
        (Scripted(7, "OSError: gone"), "OSError: gone"),
    ],
)
def test_survived_is_the_newest_state_or_a_newer_one(
    contestant: Scripted, outcome: str, tmp_path: Path
) -> None:
    """One that was written whole and not told yet is as good; an older one is a loss that nobody would see."""
    assert survival.kill_once(contestant, tmp_path, random.Random(1)) == outcome


def test_losses_count_where_they_are_the_same(tmp_path: Path) -> None:
    """Bit by bit, as they are written down."""
    assert survival.exact(Scripted(7), tmp_path) == 1


def test_a_row_says_what_became_of_the_others() -> None:
    """Survivors are counted, troubles by their words; what was not tried is no figure."""
    figures = {"outcomes": {"": 18, "B: x|y": 1, "A": 1}, "exact": None}

    assert survival.written("some", 20, figures) == ["some", "18 of 20", "1 x A; 1 x B: x/y", "-"]
