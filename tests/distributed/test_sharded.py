"""FSDP2 on two ranks: what a group that shares its weights makes of a window is what one process makes of it."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from ampd.engine import checkpoint
from ampd.engine.leaves import flatten
from ampd.engine.ranks import Alone
from tests.distributed.forks import fork
from tests.distributed.ranks import WINDOWS, round_trip
from tests.distributed.sharded_ranks import (
    CALM,
    die,
    divided,
    load,
    play,
    save,
    scenarios,
    tell,
    train,
    trainer_of,
)

SEED = random.SystemRandom().randrange(2**31)
NAMES = list(scenarios(SEED))
FAULTLESS = ("plain", "uneven", "every backward", "clipped", "sgd")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks, and four after them, have told what they made of all this, and saved some."""
    print("seed", SEED)
    made = tmp_path_factory.mktemp("shards")
    single = trainer_of(CALM, Alone())
    train(single, CALM, None, range(WINDOWS))
    save(single, made / "by-one", WINDOWS)
    fork(tell, SEED, made, [2, 4])
    return made


@pytest.fixture(scope="module")
def told(directory: Path) -> list[dict[str, Any]]:
    """What each of two ranks told."""
    return [json.loads((directory / f"{rank}-of-2.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def four(directory: Path) -> list[dict[str, Any]]:
    """What each of four ranks told; they have also saved again what two ranks and one process had saved."""
    return [json.loads((directory / f"{rank}-of-4.json").read_text()) for rank in range(4)]


def tensors_of(directory: Path) -> dict[str, list[float]]:
    """All tensors of the newest checkpoint that make up the training, whoever wrote them."""
    path = checkpoint.listed(directory / "checkpoints")[-1]
    tensors, _plain = flatten(checkpoint.load(path, checkpoint.verify(path)))
    return {
        name: round_trip(tensor)
        for name, tensor in tensors.items()
        if not name.startswith(("generators", "peers"))
    }


def both(told: list[dict[str, Any]], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the two ranks made of a scenario."""
    first, second = (rank["played"][name] for rank in told)
    return first, second


@functools.cache
def alone(name: str) -> dict[str, Any]:
    """What one process makes of a scenario."""
    return play(scenarios(SEED)[name])


@pytest.mark.parametrize("name", NAMES)
def test_ranks_record_the_same(told: list[dict[str, Any]], name: str) -> None:
    """Verdicts, causes, losses and the norm over all rows are the same numbers on both ranks, to the bit."""
    first, second = both(told, name)

    assert json.dumps(first["records"]) == json.dumps(second["records"])
    assert first["ledger"] == second["ledger"]


@pytest.mark.parametrize("name", NAMES)
def test_ranks_evaluate_the_same_whole_model(told: list[dict[str, Any]], name: str) -> None:
    """An evaluation sees gathered weights, also those that it uses outside of the model's own forward."""
    first, second = both(told, name)

    assert first["evaluated"] == second["evaluated"]
    assert first["evaluated"]["bias"] == pytest.approx(sum(first["weights"]["widen.bias"]), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_shared_weights_end_as_those_of_one_process(told: list[dict[str, Any]], name: str) -> None:
    """The weights are those of one process, up to the order of sums; in float16, up to what rounding makes of it."""
    one = alone(name)["weights"]
    tolerance = 1e-6 if name in FAULTLESS else 5e-3

    for weight, numbers in both(told, name)[0]["weights"].items():
        assert numbers == pytest.approx(one[weight], rel=1e-3, abs=tolerance), weight


@pytest.mark.parametrize("name", NAMES)
def test_the_norm_is_that_of_all_rows(told: list[dict[str, Any]], name: str) -> None:
    """Loss and gradient norm of every window are those of one process, though a rank has half of the gradients."""
    one = alone(name)["records"]

    for ours, theirs in zip(both(told, name)[1]["records"], one, strict=True):
        figures = (ours["loss"], ours["grad_norm"])
        assert figures == pytest.approx((theirs["loss"], theirs["grad_norm"]), rel=1e-2, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_window_is_applied_once_or_skipped(told: list[dict[str, Any]], name: str) -> None:
    """The ledger is exact, and that of one process: each window is entered once, with one end."""
    ours, one = both(told, name)[0], alone(name)["ledger"]

    assert [record["window"] for record in ours["records"]] == list(range(WINDOWS))
    assert ours["ledger"]["applied"] + sum(ours["ledger"]["skipped"].values()) == WINDOWS
    assert ours["ledger"]["applied"] == one["applied"]


def test_a_fault_on_one_rank_is_replayed_by_both(told: list[dict[str, Any]]) -> None:
    """A loss that overflows on rank 1 alone makes rank 0 replay the window too, for the same cause."""
    record = both(told, "loss on the last rank")[0]["records"][3]

    assert (record["replays"], record["skipped"]) == ([["forward", "float32"]], None)


def test_windows_that_fall_back_end_as_in_float32_from_the_start(told: list[dict[str, Any]]) -> None:
    """Every window overflows in float16 on one rank, and the weights are to the bit those of a float32 run."""
    always, plain = both(told, "always")[0], both(told, "plain")[0]

    assert always["ledger"]["fp32_fallbacks"] == {"forward": WINDOWS}
    assert always["weights"] == plain["weights"]


def test_a_window_takes_one_collective_beside_those_of_torch(told: list[dict[str, Any]]) -> None:
    """Two micro-batches, two blocks and a root: gathered forward and backward, scattered once, agreed on once."""
    gathered = 2 * (3 + 2)  # the root stays gathered between forward and backward

    assert told[0]["collectives"] == told[1]["collectives"] == {
        "broadcast_.default": 1,  # the buffers of rank 0
        "_allgather_base_.default": gathered,
        "_reduce_scatter_base_.default": 3,
        "allreduce_.default": 1,
    }  # fmt: skip


def test_parts_of_micro_batches_that_wait_wait_with_them(told: list[dict[str, Any]]) -> None:
    """Two micro-batches in two parts each are four passes; their gradients are scattered once all the same."""
    for rank in told:
        divided = rank["collectives, divided"]
        assert divided["_allgather_base_.default"] == 2 * rank["collectives"]["_allgather_base_.default"]
        assert divided["_reduce_scatter_base_.default"] == 3


def test_a_resumed_run_ends_bit_identical(told: list[dict[str, Any]]) -> None:
    """Half of the windows before a checkpoint and half after it give the weights of a run that never stopped."""
    assert told[0]["resumed"] == both(told, "plain")[0]["weights"]


def test_every_rank_saves_its_rows_and_no_more(directory: Path) -> None:
    """Each has files of its own, about as large as the other's; the manifest says where each row is."""
    (path,) = (directory / "by-two" / "checkpoints").iterdir()
    sizes = [(path / f"model.{rank}.safetensors").stat().st_size for rank in range(2)]

    assert max(sizes) < 2 * min(sizes)
    described = checkpoint.verify(path).shared["model/widen.weight"]
    assert (described.shape, described.starts) == ((7, 8), (0, 4))


@pytest.mark.parametrize("source", ["by-one", "by-two"])
def test_four_ranks_take_over_what_others_saved(directory: Path, source: str) -> None:
    """Weights, optimizer state and buffers of one process and of two ranks are the same numbers after four had them."""
    before, after = tensors_of(directory / source), tensors_of(directory / f"{source}-again")

    assert before.keys() == after.keys()
    assert before == after


def test_one_process_takes_over_what_ranks_saved(directory: Path) -> None:
    """Alone, without a group, it has the same weights and optimizer state to the bit."""
    subject = trainer_of(CALM, Alone())
    load(subject, directory / "by-two")

    tensors, _plain = flatten({key: subject.state_dict()[key] for key in ("model", "optimizer", "buffers")})
    saved = tensors_of(directory / "by-two")
    assert {name: round_trip(tensor) for name, tensor in tensors.items()} == {
        name: saved[name] for name in tensors
    }


def test_four_ranks_judge_as_one(four: list[dict[str, Any]]) -> None:
    """Some of them have no row of some weights; all record the same windows, all of which fell back."""
    records = {json.dumps(rank["played"]["always"]["records"]) for rank in four}

    assert len(records) == 1
    assert four[0]["played"]["always"]["ledger"]["fp32_fallbacks"] == {"forward": WINDOWS}


def test_four_ranks_end_as_one_process(four: list[dict[str, Any]]) -> None:
    """Every window was replayed in float32, so that only the order of sums is another."""
    one = alone("plain")["weights"]

    for weight, numbers in four[0]["played"]["always"]["weights"].items():
        assert numbers == pytest.approx(one[weight], rel=1e-3, abs=1e-6), weight


def test_ranks_make_the_same_number_of_passes(told: list[dict[str, Any]]) -> None:
    """Where micro-batches are divided, and one rank has more samples than the other, none waits for a pass of its own."""
    one = divided()

    for weight, numbers in told[0]["divided"].items():
        if not weight.endswith("passes"):
            assert numbers == pytest.approx(one[weight], rel=1e-3, abs=1e-6), weight


@pytest.mark.parametrize("name", ["plain", "always"])
def test_gathered_weights_are_not_counted_as_kept(told: list[dict[str, Any]], name: str) -> None:
    """What a micro-batch keeps for its backward pass is measured as much as under DDP, copies that autocast makes included."""
    assert both(told, name)[0]["kept"] == told[0]["averaged"][name]["kept"]


def test_ranks_leave_where_memory_runs_out(told: list[dict[str, Any]]) -> None:
    """A forward that was cut short left gathered weights behind: the group is to begin again, which the loop is told."""
    for rank, said in enumerate(told):
        assert said["struck"]["oom"].startswith(f"MustLeave: rank {rank}: injected: no memory")


def test_a_constant_ends_the_job_with_its_place_named(told: list[dict[str, Any]]) -> None:
    """It would strike the next group as well; the operator is told where, and what helps."""
    assert told[0]["struck"]["constant"].startswith("WorkloadError: a constant in loss() (")


def test_a_rank_killed_in_its_save_leaves_nothing(tmp_path: Path) -> None:
    """All rows are on the disk, and one rank could not say so: no name is given, and what was written is gone."""
    with pytest.raises(AssertionError):
        fork(die, SEED, tmp_path, [2])

    assert (tmp_path / "seen-by-0").exists()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_all_ranks_clip_by_the_norm_of_all_rows(told: list[dict[str, Any]]) -> None:
    """Windows whose norm is above the limit are clipped as one process clips them, each rank its rows."""
    ours, one = both(told, "clipped")[1]["records"], alone("clipped")["records"]

    assert {record["clipped"] for record in ours} == {True, False}
    assert [record["clipped"] for record in ours] == [record["clipped"] for record in one]


def test_zeros_are_counted_over_all_rows(told: list[dict[str, Any]]) -> None:
    """The share of vanished gradients is that of one process, though ranks have different numbers of them."""
    weights = alone("unscaled")["weights"]
    count = sum(len(numbers) for name, numbers in weights.items() if not name.endswith("passes"))

    for record in both(told, "unscaled")[0]["records"]:
        assert record["zeros"] == pytest.approx(7 / count, abs=1e-6)
