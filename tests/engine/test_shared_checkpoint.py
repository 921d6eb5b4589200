"""Checkpoints that ranks write together: each its rows, visible when all of them are on the disk, readable by any number."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ampd.engine import checkpoint, disk, rows, shared_checkpoint
from ampd.engine.leaves import bytes_of
from ampd.engine.retention import Keep
from ampd.engine.rows import Rows
from ampd.engine.rows_writer import RowsWriter
from ampd.engine.shared_checkpoint import Lead
from ampd.engine.writer import SaveTask
from ampd.errors import CheckpointError

WEIGHT = torch.arange(21.0).reshape(7, 3)


class Peer:
    """One of several threads that exchange bytes as ranks do."""

    def __init__(self, rank: int, world: int, table: list[bytes], barrier: threading.Barrier) -> None:
        self.rank, self.world = rank, world
        self._table, self._barrier = table, barrier

    def gather(self, content: bytes) -> list[bytes]:
        """What every thread gives; none takes it before all have given."""
        self._table[self.rank] = content
        self._barrier.wait(30)
        given = list(self._table)
        self._barrier.wait(30)
        return given


def peers_of(world: int) -> list[Peer]:
    """Some that know of each other."""
    table, barrier = [b""] * world, threading.Barrier(world)
    return [Peer(rank, world, table, barrier) for rank in range(world)]


def part_of(weight: Tensor, rank: int, world: int) -> Rows:
    """A rank's rows of it."""
    own = rows.rows(len(weight), rank, world)
    return Rows(weight[own.start : own.stop], tuple(weight.shape), own.start)


def state_of(weight: Tensor, rank: int, world: int) -> dict[str, Any]:
    """What a rank is to save of a model with one weight; rank 0 has the rest."""
    shared = {"model": {"weight": part_of(weight, rank, world)}}
    return {"model": {**shared["model"], "count": torch.tensor(3)}, "note": "n"} if rank == 0 else shared


def save_together(
    root: Path, states: Sequence[Mapping[str, Any]], prepare: Callable[[], object] = lambda: None
) -> tuple[Path, int]:
    """One save by as many ranks as there are states; what rank 0 makes of it. `prepare` is what rank 0 does first."""
    lead, *others = peers_of(len(states))
    with ThreadPoolExecutor(len(states)) as pool:
        follows = [
            pool.submit(shared_checkpoint.follow, root, states[peer.rank], (), peer) for peer in others
        ]
        try:
            with Lead(lead) as leads:
                prepare()
                return leads.save(root, 5, 1, states[0], ())
        finally:
            for follow in follows:
                follow.result()


def saved(root: Path, world: int = 3) -> Path:
    """A checkpoint of `WEIGHT` by some ranks."""
    return save_together(root, [state_of(WEIGHT, rank, world) for rank in range(world)])[0]


def test_what_ranks_save_together_is_loaded_whole(tmp_path: Path) -> None:
    """One process that reads it finds the tensors as they were, and everything that only rank 0 had."""
    path = saved(tmp_path)

    loaded = checkpoint.load(path, checkpoint.verify(path))
    assert torch.equal(loaded["model"]["weight"], WEIGHT)
    assert (int(loaded["model"]["count"]), loaded["note"]) == (3, "n")
    assert sorted(file.name for file in path.glob("*.safetensors")) == [
        "model.0.safetensors", "model.1.safetensors", "model.2.safetensors", "model.safetensors",
    ]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 9), writers=st.integers(1, 5), readers=st.integers(1, 5))
def test_any_number_of_ranks_reads_its_rows(count: int, writers: int, readers: int) -> None:
    """However many wrote them; a rank may have none, which are of the right shape and dtype all the same."""
    weight = torch.randn(count, 2, dtype=torch.float64)
    with TemporaryDirectory() as home:
        parts = [part_of(weight, rank, writers) for rank in range(writers)]
        for rank, part in enumerate(parts):
            checkpoint.write_tensors(Path(home), {"model/weight": part.tensor}, rank)
        described = {"model/weight": rows.shared(parts[0], writers)}
        read = [rows.load(Path(home), described, (rank, readers))["model/weight"] for rank in range(readers)]

    expected = [part_of(weight, rank, readers).tensor for rank in range(readers)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(read, expected, strict=True))
    assert {tensor.dtype for tensor in read} == {torch.float64}


def test_bad_rows_of_one_rank_stop_the_save_of_all(tmp_path: Path) -> None:
    """A weight that is not finite is named with its rank; nothing is visible, and nothing is left lying about."""
    states = [state_of(WEIGHT, 0, 2), state_of(WEIGHT * torch.inf, 1, 2)]

    with pytest.raises(CheckpointError, match="rank 1: model/weight is not finite"):
        save_together(tmp_path, states)
    assert list(tmp_path.iterdir()) == []


def test_the_disk_of_one_rank_stops_the_save_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 raises what the kernel told the other one, with its number, so that the loop knows what to do."""
    write = disk.write

    def fails_for_rank_1(path: Path, chunks: Any) -> tuple[int, str]:
        if path.name == "model.1.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, chunks)

    monkeypatch.setattr(disk, "write", fails_for_rank_1)
    with pytest.raises(OSError, match=r"rank 1: .*model\.1\.safetensors.*No space") as caught:
        saved(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_what_reads_back_otherwise_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank looks at what it wrote before rank 0 gives the whole its name."""
    real = disk.write

    def loses_a_byte(path: Path, chunks: Any) -> tuple[int, str]:
        size, digest = real(path, chunks)
        if path.name == "model.2.safetensors":
            path.write_bytes(path.read_bytes()[:-1])
        return size, digest

    monkeypatch.setattr(disk, "write", loses_a_byte)
    with pytest.raises(OSError, match=r"rank 2: .*reads back as something else"):
        saved(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_trouble_of_rank_0_lets_nobody_wait(tmp_path: Path) -> None:
    """What fails before it could say where to write is told to the others, who write nothing."""

    def fails() -> None:
        raise OSError(errno.EIO, "the loss log cannot be synced")

    with pytest.raises(OSError, match="loss log"):
        save_together(tmp_path, [state_of(WEIGHT, rank, 3) for rank in range(3)], prepare=fails)
    assert list(tmp_path.iterdir()) == []


def test_what_stands_is_not_written_again(tmp_path: Path) -> None:
    """The name says which state it is; all ranks leave it as it is."""
    path = saved(tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}

    again, size = save_together(tmp_path, [state_of(WEIGHT, rank, 3) for rank in range(3)])

    assert (again, size) == (path, sum(entry.bytes for entry in checkpoint.verify(path).files.values()))
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_a_damaged_part_condemns_the_whole(tmp_path: Path) -> None:
    """A byte in the rows of one rank is found as in any file, and the checkpoint is set aside."""
    part = saved(tmp_path) / "model.1.safetensors"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    told: list[str] = []

    assert checkpoint.newest(tmp_path, lambda _path, reason: told.append(reason)) is None
    assert "model.1.safetensors is not what its manifest lists" in told[0]


def test_room_is_asked_for_all_rows(tmp_path: Path) -> None:
    """Rank 0 has a third of the weight, and looks for room for all of it."""
    assert bytes_of(state_of(WEIGHT, 0, 3)) == WEIGHT.nbytes + torch.tensor(3).nbytes


class Silent:
    """A channel that broke."""

    rank, world = 1, 2

    def gather(self, content: bytes) -> list[bytes]:
        """Raises what gloo raises when a peer is gone."""
        raise RuntimeError("connection closed by peer")


def test_ranks_that_cannot_talk_leave(tmp_path: Path) -> None:
    """The thread that writes a part has nobody to tell; the loop raises it at its next save."""
    part = RowsWriter(tmp_path, Silent())
    task = SaveTask(window=5, seq=1, state=state_of(WEIGHT, 1, 2), keep=Keep(last=2), stall_seconds=0.0)
    part.start()
    part.save(task)
    part.close()

    with pytest.raises(RuntimeError, match="closed by peer"):
        part.save(task)
