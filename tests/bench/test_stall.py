"""The benchmark of stalls: all save the same state, and all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ampd.engine.leaves import flatten
from tests.bench import stall
from tests.bench.stall import Timed


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning"
)  # of torch.distributed, about itself
@pytest.mark.parametrize("name", ["ampd", "torch.save", "DCP", "DCP, async_save"])
def test_nobody_saves_less_than_the_state(name: str, tmp_path: Path) -> None:
    """When a save is over, at least the model and both moments are in files; it stood still for a part of that time."""
    trainer = stall.trainer_of(64)
    tensors, _plain = flatten(stall.state_of(trainer))

    timed = stall.savers(trainer)[name](tmp_path)

    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert written >= sum(tensor.nbytes for tensor in tensors.values()) > 0
    assert 0 < timed.stall <= timed.whole


def test_the_page_says_what_was_saved() -> None:
    """The size of the state, and everybody's stall as a multiple of ours."""
    timed = {"ampd": [Timed(stall=0.01, whole=0.5)] * 4, "DCP": [Timed(stall=0.025, whole=0.1)] * 4}

    page = stall.page(timed, 201_400_000, "some command", 0.5)

    assert "The state has 201 MB" in page
    assert "2.5 times as long with DCP" in page
    assert "| ampd | 10.0 ± 0.0 [10.0, 10.0] | 500.0 ± 0.0 [500.0, 500.0] | 4 |" in page
