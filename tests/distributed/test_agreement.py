"""Two ranks and one process, run by run: what a group makes of a window is what one process makes of it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.distributed.groups import run_ranks
from tests.distributed.ranks import WINDOWS, play, scenarios

SEED = random.SystemRandom().randrange(2**31)
NAMES = list(scenarios(SEED))
FAULTY = ["loss on rank 1", "loss on rank 0", "gradient on rank 1", "both", "late", "random", "random, late"]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks under torchrun made of all scenarios."""
    print("seed", SEED)
    directory = tmp_path_factory.mktemp("ranks")
    run_ranks(2, "tests.distributed.ranks", str(directory), str(SEED))
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_ranks_end_bit_identical(played: list[dict[str, Any]], name: str) -> None:
    """Weights and optimizer state have the same hash on both ranks."""
    first, second = (rank[name]["hash"] for rank in played)

    assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_ranks_record_the_same(played: list[dict[str, Any]], name: str) -> None:
    """Every window has the same verdict, cause, loss, norm and scale on both ranks, so policy decides alike."""
    first, second = (json.dumps(rank[name]["records"]) for rank in played)

    assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_a_group_equals_one_process(played: list[dict[str, Any]], name: str) -> None:
    """The weights are those of one process with the same windows, up to the order in which gradients are summed."""
    alone = play(scenarios(SEED)[name])
    # float16 rounds what each rank computes of its share; Adam makes whole steps of small gradients.
    tolerance = 5e-3 if name in FAULTY else 2e-6

    for ours, theirs in zip(played[0][name]["weights"], alone["weights"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3 if name in FAULTY else 1e-5, abs=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_the_losses_are_those_of_the_whole_window(played: list[dict[str, Any]], name: str) -> None:
    """A rank reports the mean loss over all samples of the window, not over its share."""
    alone = play(scenarios(SEED)[name])["records"]

    for ours, theirs in zip(played[1][name]["records"], alone, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2, nan_ok=True)
        assert (ours["samples"], ours["precision"]) == (theirs["samples"], theirs["precision"])


@pytest.mark.parametrize("name", NAMES)
def test_every_window_is_applied_once_or_skipped(played: list[dict[str, Any]], name: str) -> None:
    """The ledger is exact: each window is entered once."""
    ledger = played[0][name]["ledger"]

    assert [record["window"] for record in played[0][name]["records"]] == list(range(WINDOWS))
    assert ledger["windows"] == WINDOWS == ledger["applied"] + sum(ledger["skipped"].values())


@pytest.mark.parametrize("name", [name for name in FAULTY if name != "both"])
def test_the_ledger_is_that_of_one_process(played: list[dict[str, Any]], name: str) -> None:
    """Fallbacks and skips are counted alike, whichever rank met the fault."""
    alone = play(scenarios(SEED)[name])["ledger"]

    assert {key: played[0][name]["ledger"][key] for key in ("applied", "skipped", "fp32_fallbacks")} == {
        key: alone[key] for key in ("applied", "skipped", "fp32_fallbacks")
    }


def test_faults_of_two_kinds_on_two_ranks_are_one_window(played: list[dict[str, Any]]) -> None:
    """The bad loss of one rank names the replay, the bad gradient of the other what float32 did not mend."""
    record = played[1]["both"]["records"][4]

    assert record["replays"] == [["forward", "float32"]]
    assert record["skipped"] == "model"


def test_a_fault_on_one_rank_is_met_by_both(played: list[dict[str, Any]]) -> None:
    """A loss that overflows on rank 1 alone makes rank 0 replay the window too, for the same cause."""
    record = played[0]["loss on rank 1"]["records"][3]

    assert record["replays"] == [["forward", "float32"]]
    assert record["skipped"] is None
