"""Ranks and one process, run by run: what a group makes of a window is what one process makes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.distributed.forks import fork
from tests.distributed.ranks import WINDOWS, play, play_all, scenarios

pytestmark = pytest.mark.timeout(300)  # of the groups, which run before the first test
SEED = random.SystemRandom().randrange(2**31)
WORLDS = (2, 4)
NAMES = list(scenarios(SEED, 2))
EXACT = ("plain", "uneven", "every backward")
LATE = ("memory, late", "constant, late", "constants, late", "random errors, late")
IN_ORDER = [name for name in NAMES if name not in LATE]
"""An error that all ranks learn of a window late is mended after its successor, where one process mends it at once."""
UNLIKE = ("both", "memory and constant", "constants, late", "random errors, late")
LEDGERS = [name for name in NAMES if name not in UNLIKE]
"""Where one process meets the same faults: it can have one in a window, and none in a module that a constant one
window earlier has put into float32 already; the group learns of that constant a window late."""

Played = list[dict[str, Any]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Played]:
    """What each rank of a group of so many made of all scenarios."""
    print("seed", SEED)
    directory = tmp_path_factory.mktemp("ranks")
    fork(play_all, SEED, directory, worlds=WORLDS)

    @cache
    def of(world: int) -> Played:
        return [json.loads((directory / f"{rank}-of-{world}.json").read_text()) for rank in range(world)]

    return of


@cache
def alone(name: str, world: int) -> dict[str, Any]:
    """What one process makes of a scenario."""
    return play(scenarios(SEED, world)[name])


in_every_world = pytest.mark.parametrize("world", WORLDS)


@in_every_world
@pytest.mark.parametrize("name", NAMES)
def test_ranks_end_bit_identical(played: Callable[[int], Played], name: str, world: int) -> None:
    """Weights and optimizer state have the same hash on all ranks."""
    assert len({rank[name]["hash"] for rank in played(world)}) == 1


@in_every_world
@pytest.mark.parametrize("name", NAMES)
def test_ranks_record_the_same(played: Callable[[int], Played], name: str, world: int) -> None:
    """Every window has the same verdict, cause, loss, norm and scale on all ranks, so policy decides alike."""
    assert len({json.dumps(rank[name]["records"]) for rank in played(world)}) == 1


@in_every_world
@pytest.mark.parametrize("name", IN_ORDER)
def test_a_group_equals_one_process(played: Callable[[int], Played], name: str, world: int) -> None:
    """The weights are those of one process with the same windows, up to the order in which gradients are summed."""
    # float16 rounds what each rank computes of its share; Adam makes whole steps of small gradients.
    relative, absolute = (1e-5, 2e-6) if name in EXACT else (1e-3, 5e-3)

    for ours, theirs in zip(played(world)[0][name]["weights"], alone(name, world)["weights"], strict=True):
        assert ours == pytest.approx(theirs, rel=relative, abs=absolute)


@in_every_world
@pytest.mark.parametrize("name", IN_ORDER)
def test_the_losses_are_those_of_the_whole_window(
    played: Callable[[int], Played], name: str, world: int
) -> None:
    """A rank reports the mean loss over all samples of the window, not over its share."""
    for ours, theirs in zip(played(world)[1][name]["records"], alone(name, world)["records"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2, nan_ok=True)
        assert ours["samples"] == theirs["samples"]


@in_every_world
@pytest.mark.parametrize("name", NAMES)
def test_every_window_is_applied_once_or_skipped(
    played: Callable[[int], Played], name: str, world: int
) -> None:
    """The ledger is exact: each window is entered once."""
    first = played(world)[0][name]

    assert [record["window"] for record in first["records"]] == list(range(WINDOWS))
    assert first["ledger"]["windows"] == WINDOWS
    assert first["ledger"]["applied"] + sum(first["ledger"]["skipped"].values()) == WINDOWS


@in_every_world
@pytest.mark.parametrize("name", LEDGERS)
def test_the_ledger_is_that_of_one_process(played: Callable[[int], Played], name: str, world: int) -> None:
    """Fallbacks, skips and replays are counted alike, whichever rank met the fault."""
    ours, theirs = played(world)[0][name]["ledger"], alone(name, world)["ledger"]

    for key in ("applied", "skipped", "fp32_fallbacks", "replays"):
        assert ours[key] == theirs[key], key


@in_every_world
def test_a_resumed_group_ends_as_one_that_was_never_stopped(
    played: Callable[[int], Played], world: int
) -> None:
    """Bit for bit, at four ranks too, whose sums depend on where DDP lays a gradient."""
    for rank in played(world):
        assert rank["resumed"] == rank["plain"]["hash"]


@in_every_world
def test_faults_of_two_kinds_on_two_ranks_are_one_window(played: Callable[[int], Played], world: int) -> None:
    """The bad loss of one rank names the replay, the bad gradient of the other what float32 did not mend."""
    record = played(world)[1]["both"]["records"][4]

    assert record["replays"] == [["forward", "float32"]]
    assert record["skipped"] == "model"


@in_every_world
def test_a_fault_on_one_rank_is_met_by_all(played: Callable[[int], Played], world: int) -> None:
    """A loss that overflows on the last rank alone makes rank 0 replay the window too, for the same cause."""
    record = played(world)[0]["loss on the last rank"]["records"][3]

    assert record["replays"] == [["forward", "float32"]]
    assert record["skipped"] is None


@in_every_world
def test_memory_that_one_rank_lacks_is_told_with_its_rank(
    played: Callable[[int], Played], world: int
) -> None:
    """All ranks learn which one it was, and say the same; whoever speaks for them tells it once."""
    told = [rank["memory on the last rank"]["reports"] for rank in played(world)]

    assert all(reports == told[0] for reports in told)
    (split,) = told[0]
    assert (split["type"], split["window"], split["parts"]) == ("split", 3, 2)
    assert split["message"].startswith(f"rank {world - 1}: injected")


@in_every_world
def test_errors_of_two_kinds_are_mended_at_once(played: Callable[[int], Played], world: int) -> None:
    """One rank lacks memory, another meets a constant: one repetition of the window mends both."""
    group = played(world)[0]["memory and constant"]

    assert [report["type"] for report in group["reports"]] == ["split", "widened"]
    assert group["records"][3]["replays"] == [["constant", "float32"]]


@in_every_world
def test_a_constant_that_is_met_twice_before_it_is_known_is_mended_twice(
    played: Callable[[int], Played], world: int
) -> None:
    """The second window was under way when the first told of it: that float32 did not help is not said of either."""
    group = played(world)[0]["constants, late"]

    assert [report["type"] for report in group["reports"]] == ["widened"]
    assert [group["records"][number]["replays"] for number in (4, 5)] == [[["constant", "float32"]]] * 2
