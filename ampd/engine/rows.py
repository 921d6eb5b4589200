"""A tensor that several ranks have together: who has which of its rows, and how they are read back from their files.

A rank has as many rows as torch.chunk gives it, perhaps none. Each writes its own to a file of its own; the manifest says
of each such tensor its shape, dtype and the row at which every rank's part begins. So it can be read by any number of
ranks, each of which opens the files that have rows of its own and reads no more of them; one that is alone reads all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import safe_open
from torch import Tensor

from ampd.engine import tensor_file


@dataclass(frozen=True, slots=True)
class Rows:
    """One rank's rows of a tensor of `shape`, from row `start` on."""

    tensor: Tensor
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Of the whole tensor."""
        return math.prod(self.shape) * self.tensor.itemsize


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says of a tensor in parts; `starts` has the first row of every rank's."""

    shape: tuple[int, ...]
    dtype: str
    starts: tuple[int, ...]

    def rows_of(self, rank: int) -> range:
        """Those that the file of `rank` has."""
        return range(self.starts[rank], (*self.starts, self.shape[0])[rank + 1])


def rows(count: int, rank: int, world: int) -> range:
    """Which of `count` rows a rank has."""
    most = -(-count // world)
    return range(min(rank * most, count), min((rank + 1) * most, count))


def size_of_rows(shape: Sequence[int], rank: int, world: int) -> int:
    """How many numbers of a tensor a rank has."""
    return len(rows(shape[0], rank, world)) * math.prod(shape[1:])


def shared(part: Rows, world: int) -> Shared:
    """What is to be said of the tensor that `part` is of."""
    starts = tuple(rows(part.shape[0], rank, world).start for rank in range(world))
    return Shared(shape=part.shape, dtype=tensor_file.NAMES[part.tensor.dtype], starts=starts)


def file_of(path: str, rank: int) -> str:
    """The file in which a rank keeps its part of the leaf at `path`."""
    return f"{path.split('/')[0]}.{rank}.safetensors"


def files_of(described: Mapping[str, Shared]) -> set[str]:
    """All files that hold parts of tensors."""
    return {file_of(path, rank) for path, entry in described.items() for rank in range(len(entry.starts))}


def load(
    directory: Path, described: Mapping[str, Shared], part: tuple[int, int] | None = None
) -> dict[str, Tensor]:
    """The tensors by path: of `part` (a rank and how many there are) its rows, else all of them."""
    wanted = {path: _wanted(entry, part) for path, entry in described.items()}
    found: dict[str, list[Tensor]] = {path: [] for path in described}
    by_file: dict[str, list[tuple[str, range]]] = {}
    for path, entry in described.items():
        for rank in range(len(entry.starts)):
            by_file.setdefault(file_of(path, rank), []).append((path, entry.rows_of(rank)))
    for name, held in by_file.items():
        with safe_open(directory / name, "pt") as file:
            for path, here in held:
                first, end = max(wanted[path].start, here.start), min(wanted[path].stop, here.stop)
                if first < end:
                    found[path].append(file.get_slice(path)[first - here.start : end - here.start])
    return {path: _joined(found[path], entry) for path, entry in described.items()}


def _wanted(entry: Shared, part: tuple[int, int] | None) -> range:
    return range(entry.shape[0]) if part is None else rows(entry.shape[0], *part)


def _joined(pieces: Sequence[Tensor], entry: Shared) -> Tensor:
    none = torch.empty(0, *entry.shape[1:], dtype=tensor_file.DTYPES[entry.dtype])
    return torch.cat(tuple(pieces)) if pieces else none
