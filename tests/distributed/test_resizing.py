"""An epoch that two ranks begin, one goes on with, and three end: every sample is trained on once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ampd.core import messages as m
from ampd.engine.ranks import Alone
from tests.distributed.forks import fork
from tests.distributed.resizing import IN_ALL, MIDDLE, begin, end, train
from tests.engine import toy


def taken(directory: Path) -> list[tuple[str, int, int]]:
    """Every sample that any rank took: by which group, for which window."""
    found = []
    for log in directory.glob("taken-by-*"):
        for line in log.read_text().splitlines():
            window, samples = json.loads(line)
            found += [(log.name.partition("-of-")[2], window, sample) for sample in samples]
    return found


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[m.Report]]:
    """The epoch, and what the one rank in the middle said."""
    directory = tmp_path_factory.mktemp("resized")
    fork(begin, 0, directory, worlds=[2])
    orders = toy.orders()
    said = train(directory, MIDDLE, Alone(orders), orders)
    fork(end, 0, directory, worlds=[3])
    return directory, said


def test_no_sample_is_lost_or_repeated(resized: tuple[Path, list[m.Report]]) -> None:
    """Windows are a pure function of their number, and all ranks of a moment share one out among them."""
    counted = Counter(sample for _group, _window, sample in taken(resized[0]))

    assert set(counted.values()) == {1}
    assert sorted(counted) == list(range(IN_ALL))


def test_every_group_took_windows_of_its_own(resized: tuple[Path, list[m.Report]]) -> None:
    """Each goes on where the one before it stopped, and none was left out."""
    windows: dict[str, list[int]] = {}
    for group, window, _sample in taken(resized[0]):
        windows.setdefault(group, []).append(window)

    assert len(windows) == 3
    assert max(windows["2.jsonl"]) + 1 == min(windows["1.jsonl"])
    assert max(windows["1.jsonl"]) + 1 == min(windows["3.jsonl"])


def test_a_resume_with_other_ranks_says_what_that_costs(resized: tuple[Path, list[m.Report]]) -> None:
    """It is not bit for bit, which whoever compares runs has to know."""
    (warned,) = (report for report in resized[1] if isinstance(report, m.Warned))

    assert warned.topic == "processes"
    assert "was saved by 2 processes, and this job has 1" in warned.message
