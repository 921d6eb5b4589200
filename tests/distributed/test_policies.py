"""Policies in a group: the trouble is rank 1's alone, or rank 0's, and what is done about it all ranks do alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.forks import fork
from tests.distributed.policies import CASES, play_all

pytestmark = pytest.mark.timeout(300)  # of the group, which runs before the first test
APART = [name for name in CASES if name.startswith("apart")]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks made of all cases."""
    directory = tmp_path_factory.mktemp("policies")
    fork(play_all, 0, directory, worlds=[2])
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in range(2)]


def said(told: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The reports of one kind."""
    return [report for report in told["reports"] if report["type"] == kind]


def acted(told: dict[str, Any]) -> list[tuple[int, str, str]]:
    """The window, author and kind of every action; what a trial is compared with holds times, which are each rank's own."""
    done = [report["applied"] for report in said(told, "applied")]
    return [(one["window"], one["author"], one["action"]["type"]) for one in done]


@pytest.mark.parametrize("name", list(CASES))
def test_all_ranks_end_alike(played: list[dict[str, Any]], name: str) -> None:
    """With the same result at the same window, and with the same weights unless that is what the case is about."""
    first, second = (rank[name] for rank in played)

    assert first["finished"] == second["finished"]
    assert first["windows"] == second["windows"]
    assert (first["weights"] == second["weights"]) is (name not in APART)


@pytest.mark.parametrize("name", list(CASES))
def test_all_ranks_do_the_same(played: list[dict[str, Any]], name: str) -> None:
    """Every action, hold, skip and comparison is met by all at the same window; files are rank 0's."""
    kinds = ("holding", "going", "skipped", "diverged", "rolled-back")
    first, second = (
        [report for kind in kinds for report in said(rank[name], kind)] + acted(rank[name]) for rank in played
    )

    assert first == second


@pytest.mark.parametrize("name", ["skip", "quarantine", "pause"])
def test_a_window_that_is_bad_on_one_rank_is_applied_by_none(played: list[dict[str, Any]], name: str) -> None:
    """It is skipped on all of them, and the job goes on to its end."""
    assert [(r["window"], r["cause"]) for r in said(played[0][name], "skipped")] == [(3, "model")]
    assert played[0][name]["finished"]["result"] == "completed"


def test_a_quarantined_window_is_kept_once(played: list[dict[str, Any]]) -> None:
    """By rank 0, which has the whole of it."""
    assert [len(said(rank["quarantine"], "quarantined")) for rank in played] == [1, 0]
    (kept,) = said(played[0]["quarantine"], "quarantined")
    assert Path(kept["path"]).exists()


def test_a_pause_holds_all_ranks_until_one_order(played: list[dict[str, Any]]) -> None:
    """Rank 0 alone is told to go on."""
    holding, going = (said(played[1]["pause"], kind) for kind in ("holding", "going"))

    assert [report["window"] for report in holding + going] == [4, 4]


def test_an_abort_ends_all_ranks(played: list[dict[str, Any]]) -> None:
    """With the reason, and without a checkpoint of afterwards."""
    finished = played[1]["abort"]["finished"]

    assert (finished["result"], finished["window"]) == ("failed", 4)
    assert "window 3 is not finite" in finished["message"]


def test_a_rollback_passes_over_the_window(played: list[dict[str, Any]]) -> None:
    """The group leaves without a result; the next one resumes before the window, and never runs it."""
    told = played[1]["rollback"]

    assert told["first"] is None
    assert [report["window"] for report in said(told, "ready")] == [4]
    assert [(r["window"], r["cause"]) for r in said(told, "skipped")] == [(6, "model")]
    assert told["finished"]["result"] == "completed"


def test_a_trial_is_reverted_for_what_one_rank_met(played: list[dict[str, Any]]) -> None:
    """By policy, at the same boundary everywhere."""
    (begun, author, _kind), injected, reverted = acted(played[1]["trial"])

    assert (author, injected) == ("", (begun, "", "inject"))
    assert reverted == (begun + 1, "policy", "configure")


def test_a_full_disk_of_rank_0_holds_all_ranks(played: list[dict[str, Any]]) -> None:
    """They hold at one boundary, try again together, and go on when there is room."""
    told = played[1]["full disk"]

    assert [report["window"] for report in said(told, "holding")] == [
        report["window"] for report in said(told, "going")
    ]
    assert len(said(told, "holding")) == 1
    assert told["finished"]["result"] == "completed"


def test_ranks_that_are_alike_are_never_told_apart(played: list[dict[str, Any]]) -> None:
    """Compared before every window."""
    assert said(played[0]["alike"], "diverged") == []


@pytest.mark.parametrize("name", APART)
def test_a_rank_with_other_weights_is_named(played: list[dict[str, Any]], name: str) -> None:
    """At the first comparison after they parted, with the first parameter that differs."""
    found = said(played[1][name], "diverged")[0]

    assert (found["window"], found["ranks"], found["parameter"]) == (5, [1], "0.weight")


def test_ranks_that_parted_are_held_each_time(played: list[dict[str, Any]]) -> None:
    """An operator who goes on all the same is told again at the next comparison."""
    told = played[0]["apart, pause"]

    assert [report["window"] for report in said(told, "holding")] == [5, 10]
    assert "rank 1 no longer has the weights of the rest" in said(told, "holding")[0]["reason"]


def test_ranks_that_parted_end_the_job_where_it_says_so(played: list[dict[str, Any]]) -> None:
    """Failed at the comparison, without a checkpoint of what is no one model."""
    told = played[0]["apart, abort"]

    assert (told["finished"]["result"], told["finished"]["window"]) == ("failed", 5)
    assert said(told, "saved") == []
