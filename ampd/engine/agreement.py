"""The one collective of an attempt: an elementwise MAX over a small vector, begun as early as its figures allow.

A rank's losses travel in slots of its own, which on other ranks hold what is below everything, so that the maximum gathers
them; under FSDP2 so do its norm and its share of zeros. What is not finite travels as what is above everything, and comes
back as NaN: gloo's MAX loses a NaN, so it cannot travel as one. After these come words of the group itself.

*When.* On a CPU a MAX of six numbers takes some ten changes of threads: each is short, but a thread that is woken while
another computes waits for its turn, which can take milliseconds. After the last backward pass nothing is left to do
meanwhile, since all of the rest hangs on the verdict. Before that pass all is known but what is made of the gradients: losses,
buffers that strayed in a forward, orders, errors. Gradients have been summed over ranks when the pass is over, and every rank
has the same bits; the same kernel makes the same norm of them. So where ranks have the same kernels the MAX begins right
before the last pass, and is long over when that is. Where it has to be later, it is: with unlike processors (sums are
divided otherwise, and norms differ in their last bits), and under FSDP2 (a rank has its rows of the gradients).

That equal bits give equal verdicts is what everything rests on then, so it is proved at every attempt: each rank's count of
the attempts that it found finite travels with the words of the next. Where counts differ a device computed wrong (or a module
wrote what is not finite into a buffer in its backward pass, on one rank), and the group begins again before anything is made
of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

_COUNTED = 1 << 16  # counts differ by one where they do; float32 is exact far beyond


class Asked(NamedTuple):
    """A MAX that has begun; the first part of `vector` is a slot for each rank, (ranks, figures)."""

    work: dist.Work
    vector: Tensor
    shape: torch.Size


def ask(figures: Tensor, words: Sequence[float], rank: int, shape: torch.Size, *, is_struck: bool) -> Asked:
    """Begin the MAX; of each row's length the first figures travel in the rank's slot. A struck rank's are infinite."""
    told = torch.full_like(figures, torch.inf) if is_struck else figures.nan_to_num(*[torch.inf] * 3)
    slots = torch.full(shape, -torch.inf, device=figures.device)
    slots[rank] = told[: shape[1]]
    said = torch.tensor(words, dtype=torch.float32).to(figures.device)
    vector = torch.cat((slots.reshape(-1), told[shape[1] :], said))
    work = dist.all_reduce(vector, dist.ReduceOp.MAX, async_op=True)
    assert work is not None, "every rank is in the group"
    return Asked(work, vector, shape)


def answer(asked: Asked) -> tuple[Tensor, Tensor]:
    """What each rank had in its slot, and the rest with the words at its end; on the CPU it waits for the other ranks."""
    asked.work.wait()
    agreed = asked.vector.masked_fill(asked.vector == torch.inf, torch.nan)
    count = asked.shape.numel()
    by_rank, others = torch.split(agreed, [count, len(agreed) - count])
    return by_rank.reshape(asked.shape), others


def completed(foretold: Tensor, figures: Tensor) -> Tensor:
    """What was foretold beside losses, (strays, orders, struck, ...), with figures that this rank has as all others have them.

    They end with strays, too, in which is what the last pass may have added. All are NaN where any rank was struck.
    """
    figures = figures.masked_fill(~figures.isfinite() | foretold[2].gt(0), torch.nan)
    return torch.cat((figures[:-1], figures[-1:] + foretold[:1], foretold[1:]))


def kernels_on(device: torch.device) -> bytes:
    """What decides, beside its arguments, which bits a kernel gives."""
    is_cuda = device.type == "cuda"
    chip = torch.cuda.get_device_name(device) if is_cuda else torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__} on {chip}, {torch.get_num_threads()} threads".encode()


class FiniteCount:
    """How many attempts this rank found finite, modulo what travels exactly."""

    def __init__(self) -> None:
        self._count = 0

    def words(self) -> tuple[int, int]:
        """It, and its negative, of which the MAX is that of the least."""
        return self._count, -self._count

    def add(self, figures: Sequence[float], most: float, least: float) -> None:
        """One attempt was judged, by figures that came with these words; RuntimeError where ranks' counts differ."""
        if most != -least:
            raise RuntimeError(
                f"one rank has found {most:.0f} attempts finite and another {-least:.0f}, of the same gradients: a device "
                "computes wrong, or a backward pass wrote NaN into a buffer; begin again from the last checkpoint"
            )
        self._count = (self._count + all(map(math.isfinite, figures))) % _COUNTED
