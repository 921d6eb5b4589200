"""Bytes between ranks, by torch's collectives of tensors: `*_object` of torch.distributed would pickle them.

Their lengths travel first, since a collective has to know the size of what it carries.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


def spread(content: bytes, rank: int) -> bytes:
    """What rank 0 gives, on every rank: the length, then the bytes."""
    size = torch.tensor([len(content)])
    dist.broadcast(size, 0)
    carried = _tensor_of(content if rank == 0 else b"", int(size[0]))
    dist.broadcast(carried, 0)
    return carried.numpy().tobytes()


def gather(content: bytes, world: int, group: ProcessGroup | None = None) -> list[bytes]:
    """What every rank gives, by rank: the lengths, then the bytes, padded to the longest."""
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(content)]), group)
    lengths = [int(size[0]) for size in sizes]
    if not any(lengths):
        return [b""] * world
    carried = [_tensor_of(b"", max(lengths)) for _ in lengths]
    dist.all_gather(carried, _tensor_of(content, max(lengths)), group)
    return [each.numpy().tobytes()[:length] for each, length in zip(carried, lengths, strict=True)]


def _tensor_of(content: bytes, size: int) -> Tensor:
    padded = torch.zeros(size, dtype=torch.uint8)
    if content:
        padded[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return padded
