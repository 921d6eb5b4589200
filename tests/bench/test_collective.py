"""The bench of the agreement: what it prints is what was measured, and both kinds of windows are trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.collective import Turn, play, told
from tests.distributed.forks import fork


def test_the_share_is_what_windows_took_longer() -> None:
    """The median over turns, so that one bad turn moves nothing."""
    turns = [Turn(agreed=1.01, apart=1.0)] * 3 + [Turn(agreed=9.0, apart=1.0)]

    assert turns[0].share == pytest.approx(0.01)
    assert "| 4 | 1000.00 ms | 1010.00 ms | +1.00% |" in told(turns)


@pytest.mark.timeout(240)
def test_two_ranks_train_both_kinds_of_windows(tmp_path: Path) -> None:
    """Two turns of two windows, for real; how long they took is nobody's business here."""
    fork(play, 2002, tmp_path, worlds=[2])

    turns = [Turn(**row) for row in json.loads((tmp_path / "turns.json").read_text())]
    assert len(turns) == 2
    assert all(turn.agreed > 0 and turn.apart > 0 for turn in turns)
