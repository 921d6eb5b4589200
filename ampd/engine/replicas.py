"""Whether all ranks still have the same weights, and which rank has others.

They start alike and make the same updates of the same gradients, so they stay alike to the bit; a device that computes
wrong, or a kernel that does not repeat itself, parts them for good and in silence: gradients of different models are
averaged from then on, and the loss still looks like one. So now and then every rank adds up the bits of its weights, on its
device, and one number for each goes round.

A sum of bits and no checksum: it costs one pass over the weights and no memory, it sees any one bit that differs, and nobody
forges weights here. Of the weights alone, since what differs in the optimizer's state is in them an update later. Where
weights are shared out (fsdp2) there is nothing to compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import torch
from torch import Tensor

from ampd.engine.ranks import Ranks

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SUMS = msgspec.msgpack.Decoder(list[int])


class Odd(msgspec.Struct, frozen=True):
    """The ranks whose weights are not those of most, and the first parameter in which they differ."""

    ranks: tuple[int, ...]
    parameter: str


def compare(weights: Mapping[str, Tensor], ranks: Ranks) -> Odd | None:
    """The ranks that are odd, if any, alike on all; a host sync, and two small collectives, or four where some are."""
    sums = sums_of(weights.values())
    digests = _told(ranks, [digest_of(sums)])
    if len(set(map(tuple, digests))) == 1:
        return None
    return odd_of(list(weights), _told(ranks, sums.tolist()))


def sums_of(weights: Iterable[Tensor]) -> Tensor:
    """For each tensor its bits as integers, added up; int64, with what is too large for it let go."""
    return torch.stack(
        [w.detach().contiguous().view(_BITS[w.element_size()]).sum(dtype=torch.int64) for w in weights]
    )


def digest_of(sums: Tensor) -> int:
    """One number for all; two tensors that change places change it."""
    places = torch.arange(1, 2 * len(sums), 2, device=sums.device)
    return int((sums * places).sum())


def odd_of(names: Sequence[str], by_rank: Sequence[Sequence[int]]) -> Odd:
    """Who differs from most ranks, or from the lower of two, and where first."""
    ((usual, _count),) = Counter(map(tuple, by_rank)).most_common(1)
    differing = (name for place, name in enumerate(names) if len({sums[place] for sums in by_rank}) > 1)
    odd = tuple(rank for rank, sums in enumerate(by_rank) if tuple(sums) != usual)
    return Odd(ranks=odd, parameter=next(differing))


def _told(ranks: Ranks, numbers: list[int]) -> list[list[int]]:
    return [_SUMS.decode(each) for each in ranks.gather(msgspec.msgpack.encode(numbers))]
