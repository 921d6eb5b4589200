"""Checkpoints: what goes in comes out, what is visible is complete, and what is damaged is set aside."""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from torch import Tensor, nn

from ampd.engine import checkpoint, leaves, retention
from ampd.engine.retention import Keep
from ampd.errors import CheckpointError
from tests.engine import toy
from tests.engine.disks import full_beyond

STATE: dict[str, Any] = {
    "model": {"w": torch.arange(4.0)},
    "stages": {"scaler": {"value": torch.ones(1)}},
    "n": 3,
}
KEYS = st.text("ab/%.2F5 ", min_size=1, max_size=6)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=5)
    | st.lists(st.integers(0, 9))
)
TENSORS = st.builds(
    lambda dtype, shape: torch.arange(math.prod(shape)).view(shape).to(dtype),
    st.sampled_from(
        [
            torch.float16,
            torch.bfloat16,
            torch.float32,
            torch.float64,
            torch.int32,
            torch.int64,
            torch.uint8,
            torch.bool,
        ]
    ),
    st.lists(st.integers(0, 3), max_size=3),
)
TREES = st.dictionaries(
    KEYS, st.recursive(PLAIN | TENSORS, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6)
)


def same(a: Any, b: Any) -> bool:
    """Whether two states are the same, tensors to the bit and the type."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return bool(type(a) is type(b) and a == b)


def saved(root: Path, *windows: int, state: dict[str, Any] = STATE) -> list[Path]:
    """The directories of checkpoints at these windows."""
    return [checkpoint.save(root, window, 0, state)[0] for window in windows]


@given(TREES)
def test_any_tree_can_be_flattened(state: dict[str, Any]) -> None:
    """Whatever the keys are made of, slashes and percent signs too, the tree comes back."""
    tensors, plain = leaves.flatten(state)

    assert same(leaves.unflatten({**tensors, **plain}), state)
    assert not any(isinstance(leaf, Tensor) for leaf in plain.values())


@given(TREES)
def test_any_state_comes_back(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]) -> None:
    """Tensors of every type and shape, and every kind of plain data, through files and back."""
    root = tmp_path_factory.mktemp("checkpoints")
    (path,) = saved(root, 1, state=state)

    assert same(checkpoint.load(path, checkpoint.verify(path)), state)


def test_the_manifest_says_what_it_is(tmp_path: Path) -> None:
    """Window, action and versions are in it; the size is that of its files."""
    path, size = checkpoint.save(tmp_path, 500, 2, STATE)

    manifest = checkpoint.verify(path)

    assert path.name == "window-00000500-0002"
    assert (manifest.window, manifest.seq, manifest.torch_version) == (500, 2, str(torch.__version__))
    assert size == sum(p.stat().st_size for p in path.glob("*.safetensors"))


def test_each_part_can_be_read_alone(tmp_path: Path) -> None:
    """One file for each top-level key that has tensors."""
    (path,) = saved(tmp_path, 1)

    assert sorted(p.name for p in path.iterdir()) == [
        "manifest.json",
        "manifest.sha256",
        "model.safetensors",
        "stages.safetensors",
    ]


class Tied(toy.Toy):
    """A toy whose first and last layer share a weight."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        first, last = nn.Linear(8, 8), nn.Linear(8, 8)
        last.weight = first.weight
        self.model = nn.Sequential(first, nn.ReLU(), last)

    def loss(self, micro_batch: Any) -> Tensor:
        """Mean squared error against the input's sum."""
        return nn.functional.mse_loss(
            self.model(micro_batch.tensors["x"]).sum(1, keepdim=True), micro_batch.tensors["y"]
        )


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    """A weight under two names is saved under both and loaded into one."""
    trained, fresh = toy.trainer(Tied(1)), toy.trainer(Tied(2))
    toy.run(trained, range(3))

    (path,) = saved(tmp_path, 3, state=trained.state_dict())
    fresh.load_state_dict(checkpoint.load(path, checkpoint.verify(path)))

    assert toy.state_bytes(fresh) == toy.state_bytes(trained)
    assert len(fresh.parts.parameters) == 3
    assert fresh.parts.model.get_parameter("2.weight") is fresh.parts.model.get_parameter("0.weight")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("optimizer", [{"name": "adamw"}, {"name": "sgd"}, {"fused": False}])
def test_a_trainer_goes_on_bit_for_bit(tmp_path: Path, dtype: str, optimizer: dict[str, Any]) -> None:
    """Saved in the middle of trouble and loaded into a fresh trainer, the rest of the run is the same."""
    sections: dict[str, Any] = {
        "amp": {"dtype": dtype, "init_scale": 64.0, "hysteresis": 2, "growth_interval": 3}, "optim": optimizer,
    }  # fmt: skip
    whole, resumed = toy.trainer(**sections), toy.trainer(toy.Toy(9), **sections)
    toy.run(whole, range(3), {1: "nan-grad", 2: "overflow"})
    (path,) = saved(tmp_path, 3, state=whole.state_dict())

    straight = toy.run(whole, range(3, 8), {4: "nan-grad"})
    resumed.load_state_dict(checkpoint.load(path, checkpoint.verify(path)))
    again = toy.run(resumed, range(3, 8), {4: "nan-grad"})

    assert repr(again) == repr(straight)  # NaN is not equal to itself
    assert toy.state_bytes(resumed) == toy.state_bytes(whole)
    assert resumed.ledger == whole.ledger


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_state_that_is_not_finite_is_refused(tmp_path: Path, poison: float) -> None:
    """The previous one stands, nothing new is visible, and the tensor is named."""
    saved(tmp_path, 1)
    bad = {"model": {"good": torch.ones(2), "bad": torch.tensor([0.0, poison])}}

    with pytest.raises(CheckpointError, match=r"model/bad is not finite"):
        checkpoint.save(tmp_path, 2, 0, bad)

    assert [p.name for p in tmp_path.iterdir()] == ["window-00000001-0000"]


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_plain_number_is_kept_or_refused(tmp_path: Path, number: float) -> None:
    """A workload that captures its best loss so far never gets None back in its place."""
    try:
        (path,) = saved(tmp_path, 1, state={"workload": {"best": number}})
    except CheckpointError:
        return

    assert isinstance(checkpoint.load(path, checkpoint.verify(path))["workload"]["best"], float)


def damage_byte(path: Path) -> None:
    """One bit of one tensor."""
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def damage_manifest_text(path: Path) -> None:
    """The manifest ends in the middle, as after a crash of a lesser file system."""
    manifest = path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])


def damage_format(path: Path) -> None:
    """A manifest of a version to come."""
    manifest = path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 999}))


def damage_name(path: Path) -> None:
    """Put the checkpoint before it in its place."""
    shutil.rmtree(path)
    shutil.copytree(path.with_name("window-00000010-0000"), path)


DAMAGES: list[Callable[[Path], object]] = [
    damage_byte, damage_manifest_text, damage_format,
    lambda path: os.truncate(path / "model.safetensors", 10),
    lambda path: (path / "model.safetensors").unlink(),
    lambda path: (path / "manifest.json").unlink(),
    lambda path: (path / "manifest.json").write_text("{}"),
    lambda path: (path / "manifest.sha256").unlink(),
    lambda path: (path / "extra").write_text(""),
    damage_name,
    lambda path: (path / "manifest.json").write_text((path / "manifest.json").read_text().replace('"n":3', '"n":4')),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """The one before it is used, and the damaged one is kept under another name and told of."""
    good, bad = saved(tmp_path, 10, 20)
    damage(bad)
    told: list[tuple[Path, str]] = []

    found = checkpoint.newest(tmp_path, lambda path, why: told.append((path, why)))

    assert found is not None
    assert found[0] == good
    ((aside, why),) = told
    assert (aside.name, aside.is_dir(), bad.exists()) == (bad.name + ".damaged", True, False)
    assert str(bad) in why
    assert checkpoint.listed(tmp_path) == [good]


def test_with_nothing_left_there_is_none(tmp_path: Path) -> None:
    """No directory, an empty one, and one with only damage in it give no checkpoint."""
    assert checkpoint.newest(tmp_path / "missing", lambda *_: None) is None
    (bad,) = saved(tmp_path, 1)
    damage_byte(bad)

    assert checkpoint.newest(tmp_path, lambda *_: None) is None


def test_the_newest_is_used(tmp_path: Path) -> None:
    """By window, then by action, whatever the order of writing."""
    for window, seq in ((20, 1), (5, 9), (20, 0)):
        checkpoint.save(tmp_path, window, seq, STATE)

    found = checkpoint.newest(tmp_path, lambda *_: None)

    assert found is not None
    assert (found[1].window, found[1].seq) == (20, 1)


def test_a_very_long_job_finds_its_newest(tmp_path: Path) -> None:
    """The hundred-millionth window comes after the one before it."""
    saved(tmp_path, 99_999_999, 100_000_000)

    assert [checkpoint.verify(p).window for p in checkpoint.listed(tmp_path)] == [99_999_999, 100_000_000]


def test_what_is_half_done_is_not_seen(tmp_path: Path) -> None:
    """A temporary directory that a crash left behind is neither listed nor used, and pruned away."""
    (good,) = saved(tmp_path, 1)
    leftover = tmp_path / ".window-00000002-0000.tmp-1"
    leftover.mkdir()
    (leftover / "manifest.json").write_text("{}")

    assert checkpoint.listed(tmp_path) == [good]
    retention.prune(tmp_path, Keep(last=2))
    assert list(tmp_path.iterdir()) == [good]


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    """So many as asked for; fewer there are, all stay."""
    paths = saved(tmp_path, 1, 2, 3, 4)

    retention.prune(tmp_path, Keep(last=3))
    assert checkpoint.listed(tmp_path) == paths[1:]
    retention.prune(tmp_path, Keep(last=5))
    assert checkpoint.listed(tmp_path) == paths[1:]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (Keep(last=2), [5, 6]),
        (Keep(last=2, every=4), [4, 5, 6]),
        (Keep(last=2, best=1), [3, 5, 6]),
        (Keep(last=2, best=2), [2, 3, 5, 6]),
        (Keep(last=2, every=4, best=1), [3, 4, 5, 6]),
    ],
)
def test_some_are_kept_for_longer(tmp_path: Path, keep: Keep, left: list[int]) -> None:
    """Multiples of a number of windows, and the best by evaluated loss; one that was not evaluated is none of the best."""
    losses = {1: None, 2: 0.4, 3: 0.3, 4: 0.5, 5: None, 6: 0.6}
    for window, loss in losses.items():
        evaluated = {} if loss is None else {"loss": loss}
        saved(tmp_path, window, state={**STATE, "evaluated": evaluated})

    retention.prune(tmp_path, keep)

    assert [checkpoint.verify(path).window for path in checkpoint.listed(tmp_path)] == left


def test_a_damaged_one_is_not_the_best(tmp_path: Path) -> None:
    """Its manifest cannot be trusted to say so."""
    paths = [saved(tmp_path, n, state={**STATE, "evaluated": {"loss": float(n)}})[0] for n in (1, 2, 3, 4, 5)]
    (paths[0] / "manifest.json").write_bytes(b"")

    retention.prune(tmp_path, Keep(last=2, best=1))

    assert checkpoint.listed(tmp_path) == [paths[1], paths[3], paths[4]]


def test_a_state_is_written_once(tmp_path: Path) -> None:
    """Window and action name a state, so a name that is there is proved and left alone."""
    (path,) = saved(tmp_path, 7)
    before = {p.name: p.stat().st_mtime_ns for p in path.iterdir()}

    again, size = checkpoint.save(tmp_path, 7, 0, STATE)

    assert (again, size) == (path, sum(p.stat().st_size for p in path.glob("*.safetensors")))
    assert {p.name: p.stat().st_mtime_ns for p in path.iterdir()} == before


def assert_only_whole_checkpoints(root: Path, before: list[Path]) -> None:
    """What was there is there, and whatever is visible verifies."""
    assert set(before) <= set(checkpoint.listed(root))
    for path in checkpoint.listed(root):
        checkpoint.verify(path)
    assert list(root.glob(".*")) == []


@pytest.mark.parametrize("fails_at", range(6))
def test_a_sync_that_fails_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Two files, the manifest and its checksum, the directory, its parent: whichever cannot be synced, the error comes through."""
    before, calls, real = saved(tmp_path, 1), [], os.fsync

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == fails_at + 1:
            raise OSError(errno.EIO, "input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="input/output error"):
        checkpoint.save(tmp_path, 2, 0, STATE)

    assert_only_whole_checkpoints(tmp_path, before)


def test_every_file_and_directory_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is renamed into sight: files, then their directory; after it, the parent."""
    synced: list[tuple[str, bool]] = []
    real, target = os.fsync, tmp_path / "window-00000001-0000"

    def recording(descriptor: int) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, target.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    checkpoint.save(tmp_path, 1, 0, STATE)

    *files, directory, parent = synced
    names = ("manifest.json", "manifest.sha256", "model.safetensors", "stages.safetensors")
    assert sorted(files) == [(name, False) for name in names]
    assert directory[0].startswith(".window-00000001-0000") and not directory[1]
    assert parent == (tmp_path.name, True)


@pytest.mark.parametrize(
    "state",
    [{"model": {"w": torch.zeros(20_000)}}, {"model": {"w": torch.zeros(2)}, "text": "x" * 40_000}],
    ids=["tensors", "manifest"],
)
def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, state: dict[str, Any]) -> None:
    """Whichever file does not fit, it is an error that the writer reports, and the previous checkpoint stands alone."""
    before = saved(tmp_path, 1)

    with full_beyond(30_000), pytest.raises((OSError, CheckpointError), match="too large"):
        checkpoint.save(tmp_path, 2, 0, state)

    assert checkpoint.listed(tmp_path) == before
    assert_only_whole_checkpoints(tmp_path, before)


def test_a_rename_that_fails_leaves_nothing_half_done(tmp_path: Path) -> None:
    """Something of another kind has the name: the error comes through and nothing is left."""
    before = saved(tmp_path, 1)
    (tmp_path / "window-00000002-0000").symlink_to("nowhere")

    with pytest.raises(OSError):
        checkpoint.save(tmp_path, 2, 0, STATE)

    (tmp_path / "window-00000002-0000").unlink()
    assert_only_whole_checkpoints(tmp_path, before)


def test_a_root_that_is_no_directory_is_an_error(tmp_path: Path) -> None:
    """A file in the place of the directory of checkpoints."""
    (tmp_path / "checkpoints").write_text("")

    with pytest.raises(OSError, match="checkpoints"):
        checkpoint.save(tmp_path / "checkpoints", 1, 0, STATE)


class Bomb:
    """What runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


def test_loading_runs_no_code(tmp_path: Path) -> None:
    """A pickle under a safetensors name, with a manifest that vouches for it, is not executed."""
    (path,) = saved(tmp_path, 1)
    torch.save(Bomb(tmp_path / "exploded"), path / "model.safetensors")
    (path / "stages.safetensors").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    vouch_for(path)

    with pytest.raises((SafetensorError, CheckpointError)):
        checkpoint.load(path, checkpoint.verify(path))

    assert not (tmp_path / "exploded").exists()


def vouch_for(path: Path) -> None:
    """Make the manifest list the files as they are now."""
    import hashlib

    manifest = json.loads((path / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        content = (path / name).read_bytes()
        entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    content = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(content)
    (path / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")
    checkpoint.verify(path)
