"""The agreement begins as early as ranks are sure to see alike what comes after it, and they find out where they did not."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from ampd.engine import agreement
from tests.distributed.asking import MISSEEN, play
from tests.distributed.forks import fork
from tests.distributed.ranks import WINDOWS

EARLY = ["pass", "pass", "max", "pass"]
LATE = ["pass", "pass", "pass", "max"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks told."""
    directory = tmp_path_factory.mktemp("asking")
    fork(play, 0, directory, worlds=[2])
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(("case", "expected"), [("alike", EARLY), ("buffered", EARLY), ("unlike", LATE)])
def test_a_window_takes_one_collective_of_ours(
    told: list[dict[str, Any]], case: str, expected: list[str]
) -> None:
    """One MAX, right before the last pass, or after it where other kernels may make another norm of the same gradients."""
    assert [rank[case] for rank in told] == [expected, expected]


def test_a_rank_that_judged_otherwise_is_found_at_the_next_attempt(told: list[dict[str, Any]]) -> None:
    """One rank applied a window and the other did not: neither applies one after it."""
    first, last = (rank["misseen"] for rank in told)

    assert first["applied"] == [True] * (MISSEEN + 1)
    assert last["applied"] == [True] * MISSEEN + [False]
    assert first["error"] == last["error"]
    assert "one rank has found 3 attempts finite and another 2" in first["error"]


def test_ranks_with_other_kernels_agree_on_what_one_of_them_sees(told: list[dict[str, Any]]) -> None:
    """A norm that is not finite on one rank is not finite on any, and training goes on."""
    expected = {"applied": [number != MISSEEN for number in range(WINDOWS)], "error": ""}

    assert [rank["misseen, unlike"] for rank in told] == [expected, expected]


def test_the_same_device_has_the_same_kernels() -> None:
    """What is compared does not change between two looks; sums are divided by threads, so their number is in it."""
    known = agreement.kernels_on(torch.device("cpu"))

    assert known == agreement.kernels_on(torch.device("cpu"))
    assert known.endswith(b", %d threads" % torch.get_num_threads())


def test_a_buffer_that_strays_on_one_rank_keeps_all_from_the_window(told: list[dict[str, Any]]) -> None:
    """What a forward wrote is told in time: no rank applies that window, and all go on."""
    expected = {"applied": [number != MISSEEN for number in range(WINDOWS)], "error": ""}

    assert [rank["strayed"] for rank in told] == [expected, expected]


def test_counts_begin_again_before_they_stop_being_exact() -> None:
    """However many attempts were finite, the words are whole numbers that float32 tells apart."""
    count = agreement.FiniteCount()
    for _ in range((1 << 16) - 1):
        count.add((), 0.0, 0.0)
    assert count.words() == ((1 << 16) - 1, 1 - (1 << 16))

    count.add((), 0.0, 0.0)
    assert count.words() == (0, 0)
