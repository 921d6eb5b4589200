"""The bench of the agreement: what it prints is what was measured, and both kinds of windows are trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.collective import Spent, Way, play, read, told
from tests.distributed.forks import fork


def test_the_share_is_what_windows_took_longer() -> None:
    """The median over turns, so that one bad turn moves nothing."""
    none, early = Spent(1.0, 0.0, 0.5), Spent(1.01, 0.002, 0.6)
    turns = [{Way.NONE: none, Way.EARLY: early, Way.LATE: none}] * 3
    turns.append({Way.NONE: none, Way.EARLY: Spent(9.0, 9.0, 9.0), Way.LATE: none})

    assert "| early | 1010.00 ms | +1.00% |" in told(turns)
    assert "| 2.000 ms | 600.00 ms |" in told(turns)
    assert "| none | 1000.00 ms | +0.00% | 0.00% |" in told(turns)


@pytest.mark.timeout(240)
def test_two_ranks_train_all_kinds_of_windows(tmp_path: Path) -> None:
    """Two turns of two windows, for real; how long they took is nobody's business here."""
    fork(play, 2002, tmp_path, worlds=[2])

    turns = read(tmp_path)
    assert len(turns) == 2
    assert all(set(turn) == set(Way) for turn in turns)
    assert all(spent.window > 0 and spent.cpu > 0 for turn in turns for spent in turn.values())
