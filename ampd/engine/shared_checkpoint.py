"""A checkpoint that several ranks write together: each the rows that it has, rank 0 the rest and the name.

    rank 0:  settle, make the directory   write   |  manifest, sync, read back, rename
    others:                      `.______ write __|
                            where?          what?

Two exchanges, between the writers' threads and over a channel of their own, so that no loop waits: rank 0 says where, and
every rank says what it has written (sizes and checksums of its files, each fsynced and read back) or why it could not.
Only then does rank 0 write the manifest, so a checkpoint becomes visible in one rename when all of it is on the disk, as
one that a process writes alone. Where any rank fails, all know, and nothing becomes visible.

torch.distributed.checkpoint would do the sharding, but its `.metadata` is a pickle, which whoever loads it runs, and it
writes files by itself: without our fsyncs, checksums, failpoints and errors that say what to do. What it would save here is
one page of code, since every shard is a run of rows.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from torch import Tensor

from ampd import failpoints
from ampd.engine import checkpoint, disk, rows
from ampd.engine.checkpoint import FileEntry
from ampd.engine.leaves import bytes_of, parted
from ampd.engine.ranks import Peers
from ampd.engine.rows import Rows
from ampd.errors import CheckpointError


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank tells of its files: what they are, or the trouble that it had."""

    files: dict[str, FileEntry] = {}
    trouble: str = ""
    errno: int | None = None
    """Where it was the disk's."""


_WRITTEN = msgspec.msgpack.Decoder(Written)


class Lead:
    """Rank 0's side of one save, from before anything of it can fail; the others wait for it to say where."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._has_said = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell those who still wait that there is nothing to write."""
        if not self._has_said:
            self._say("")

    def save(
        self, root: Path, window: int, seq: int, state: Mapping[str, Any], unjudged: Collection[str]
    ) -> tuple[Path, int]:
        """As `checkpoint.save`, which raises the same; also for what went wrong on another rank."""
        target = checkpoint.target_of(root, window, seq)
        if target.exists():
            return target, checkpoint.size_of_standing(target)
        tensors, plain, parts = parted(state)
        shared = {path: rows.shared(part, self._peers.world) for path, part in parts.items()}
        with checkpoint.unpublished(target, bytes_of(state)) as directory:
            self._say(directory.name)
            files = exchanged(self._peers, directory, tensors, plain, parts, unjudged)
            return target, checkpoint.finish(
                directory, target, (window, seq), files, plain, shared, seen=files
            )

    def _say(self, name: str) -> None:
        self._has_said = True
        self._peers.gather(name.encode())


def follow(root: Path, state: Mapping[str, Any], unjudged: Collection[str], peers: Peers) -> None:
    """Another rank's side: write the rows that it has, where rank 0 says, and tell how that went; reports nothing else."""
    name = peers.gather(b"")[0].decode()
    if name:
        _tell(peers, root / name, {}, {}, parted(state)[2], unjudged)


def exchanged(
    peers: Peers, directory: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], parts: Mapping[str, Rows],
    unjudged: Collection[str],
) -> dict[str, FileEntry]:  # fmt: skip
    """Write this rank's files; all ranks' files. Raises the first trouble that any rank had, in its words."""
    files: dict[str, FileEntry] = {}
    for rank, written in enumerate(_tell(peers, directory, tensors, plain, parts, unjudged)):
        if written.errno is not None:
            raise OSError(written.errno, f"rank {rank}: {written.trouble}")
        if written.trouble:
            raise CheckpointError(f"rank {rank}: {written.trouble}")
        files |= written.files
    return files


def _tell(
    peers: Peers, directory: Path, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], parts: Mapping[str, Rows],
    unjudged: Collection[str],
) -> list[Written]:  # fmt: skip
    """Write this rank's files, and hear what every rank has to tell."""
    try:
        own = {path: part.tensor for path, part in parts.items()}
        checkpoint.refuse_nonfinite({**tensors, **own}, plain, unjudged)
        files = checkpoint.write_tensors(directory, tensors) | checkpoint.write_tensors(
            directory, own, peers.rank
        )
        failpoints.reach("rows.written")
        _read_back(directory, files)
        written = Written(files=files)
    except OSError as error:
        written = Written(trouble=disk.words(error), errno=error.errno or errno.EIO)
    except Exception as error:  # noqa: BLE001  # the others wait for an answer, good or bad
        written = Written(trouble=str(error) or repr(error))
    return [_WRITTEN.decode(told) for told in peers.gather(msgspec.msgpack.encode(written))]


def _read_back(directory: Path, files: Mapping[str, FileEntry]) -> None:
    for name, entry in files.items():
        if checkpoint.entry_of(directory / name) != entry:
            raise OSError(errno.EIO, "what was written reads back as something else", str(directory / name))
