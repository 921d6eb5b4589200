"""The ranks of a job: one process that is alone, or a group that judges every window together.

torch does the work: torchrun starts the processes, DistributedDataParallel averages the gradients, gloo and NCCL
carry. What is added here is agreement. With more than one rank every attempt takes one elementwise MAX over a small
vector: each rank's losses in slots of its own (so that a maximum gathers them), other figures that ranks may see
differently, and whether rank 0 has orders waiting; `agreement` says when, and why so early. It is always executed, never
only when something is wrong: a collective that one rank skips is a hang. What comes out is the same on all ranks, so
whatever is decided from it (replay, skip, scale, policy) is decided alike everywhere, and nobody is asked again. The
reading that judges a window is the only one: agreement adds none.

Orders reach one rank. When a window's vector says that some wait, all ranks take them at the next boundary, as
msgspec bytes in the order of ranks; so a change, a pause, a checkpoint or a stop is met by all at the same window. Every rank builds
the whole window and takes its share of each micro-batch: the window is a pure function of its number, whatever the
number of processes, which is why they need not talk about data. It costs each process the building of all samples.

A rank that runs out of memory, or meets a constant that float16 cannot hold, does so alone, while the others go on to the
one backward pass in which gradients travel, and wait for it there. It sends zeros instead, in a pass over the parameters
alone, and says in the vector that it was struck. So an error costs no collective of its own, and nothing at all in windows
without one. What strikes inside that pass cannot be caught up with: some of the rank's gradients are summed already. Then
the rank leaves, and the group begins again.

A process that is alone pays nothing for any of this: `Alone` hands everything through.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.distributed import Store  # type: ignore[attr-defined]  # it does not list its own names
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ampd.engine import agreement, exchange
from ampd.engine.agreement import Asked, FiniteCount
from ampd.engine.averaged import Averaged, LossModule
from ampd.engine.mending import is_out_of_memory
from ampd.engine.overrides import is_constant_overflow
from ampd.engine.ranks import Alone, Heard, Moments, Orders, Ranks, Weights, Whole, state_of
from ampd.engine.shared_orders import SharedOrders
from ampd.engine.window import MicroBatch
from ampd.engine.work import HostWork, Work, work_on
from ampd.engine.workload import HasLoss
from ampd.errors import WorkloadError


class Group(Whole):
    """One rank of several, in torch's default process group; for the loop's thread."""

    is_sharded = False

    def __init__(self, own: Orders, waits: Callable[[bool], None] = lambda _is_waiting: None) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.is_called = False
        """Some rank had orders when the last agreed window was judged."""
        self._own, self._waits = own, waits
        self._shared = SharedOrders(self, own)
        self._averaged: DistributedDataParallel | None = None
        self._accumulates = True
        self._is_sending = False
        self._foretells = False
        self._asked: Asked | None = None
        self._finite = FiniteCount()
        self._work: Work = HostWork()

    @property
    def worked(self) -> float:
        """From the agreement on a window to the gradients of the next; nothing where weights are gathered in between."""
        return self._work.seconds

    def share(self, micro_batch: MicroBatch) -> tuple[MicroBatch, float]:
        """The rank's part along the first dimension; raises WorkloadError where there are too few samples."""
        if micro_batch.samples < self.world:
            raise WorkloadError(
                f"a micro-batch of {micro_batch.samples} samples cannot be shared by {self.world} processes; "
                "each needs at least one: yield larger micro-batches, or lower distributed.processes"
            )
        part = micro_batch.parts(self.world)[self.rank]
        return part, part.samples * self.world / micro_batch.samples

    def passes(self, micro_batch: MicroBatch, split: int) -> int:
        """As many as are asked for, or the part has samples: ranks need not make the same number."""
        return split

    def join(self, workload: HasLoss, model: nn.Module, *, accumulate: bool) -> HasLoss:
        """The loss under DistributedDataParallel. Buffers are ours to align: a replay puts them back first.

        DDP lays gradients out anew after its first backward pass, in the order in which they came, and sums of three ranks or
        more depend on where a number lies. So that pass is one of zeros, before any window: a resumed run then sums in the
        order of one that was never stopped.
        """
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # its successor is not in all versions that we take
            self._averaged = DistributedDataParallel(LossModule(workload, model), broadcast_buffers=False)
        self._accumulates = accumulate
        device = next(model.parameters()).device
        self._work = work_on(device)
        self._send_zeros()
        self._foretells = len(set(self.gather(agreement.kernels_on(device)))) == 1
        return Averaged(self._averaged)

    def accumulating(self, *, parts: bool = False) -> AbstractContextManager[object]:
        """DDP's no_sync; between micro-batches not where `amp.enable_distributed_accumulation` is off."""
        if self._averaged is None or not (self._accumulates or parts):
            return nullcontext()
        scope: AbstractContextManager[object] = self._averaged.no_sync()
        return scope

    def collect(self) -> None:
        """DDP has put them there."""

    def backward(self, loss: Tensor) -> None:
        """DDP sums in its course, unless it accumulates."""
        self._is_sending = self._averaged is not None and self._averaged.require_backward_grad_sync
        if self._is_sending:
            self._work.end()
            self._waits(True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._is_sending = False

    def kept(self, error: RuntimeError) -> RuntimeError:
        """Without its frames where it is memory that is short: they hold on to some."""
        if self._is_sending:
            raise error
        if is_out_of_memory(error):
            return torch.OutOfMemoryError(str(error))
        if is_constant_overflow(error):
            return error
        raise error

    def stand_in(self, micro_batches: int, losses: Tensor) -> None:
        """As many passes as the others make, over the parameters alone."""
        with self.accumulating():
            for _ in range(micro_batches - 1):
                self._send_zeros()
        if self._foretells:
            self._ask(torch.cat((losses, losses.new_zeros(1))), len(losses), is_struck=True)
        self._send_zeros()

    def _send_zeros(self) -> None:
        assert self._averaged is not None, "only the passes of a model that was joined are kept"
        self.backward(self._averaged(None))

    def align(self, tensors: Callable[[], Sequence[Tensor]]) -> None:
        """As bytes, since not every backend carries every dtype."""
        for tensor in tensors():
            dist.broadcast(tensor.view(torch.uint8), 0)

    def foretell(self, losses: Sequence[Tensor], strays: Callable[[], Tensor]) -> None:
        """Begin the agreement, where all ranks will see alike what comes after it."""
        self._asked = None
        if self._foretells:
            self._ask(torch.cat((torch.stack(list(losses)), strays())), len(losses))

    def agree(self, figures: Tensor, losses: int, *, is_struck: bool) -> Tensor:
        """The one collective of an attempt, or its end; the last four figures that it returns are for `hear`."""
        was_foretold = self._asked is not None
        asked = self._asked or self._ask(figures, self._apart(len(figures), losses), is_struck=is_struck)
        by_rank, others = agreement.answer(asked)
        self._asked = None
        if was_foretold:
            others = agreement.completed(others, figures[losses:])
        self._waits(False)
        self._work.begin()
        return torch.cat((self._combined(by_rank, losses), others))

    def hear(self, figures: list[float]) -> Heard:
        """Take off the last four, of `_ask`; raises RuntimeError where a rank has judged attempts unlike the others."""
        *figures, called, struck, most, least = figures
        self._finite.add(figures, most, least)
        self.is_called = self.is_called or called > 0
        return Heard(figures, was_struck=struck > 0)

    def confer(self) -> None:
        """One collective; waits for every rank."""
        self.is_called = not self.all(self._own.empty())
        self._work.begin()  # what was before it was a pause

    def orders(self) -> Orders:
        """Those of all ranks, at every rank."""
        return self._shared

    def as_first(self, claim: bool) -> bool:
        """One broadcast; waits for rank 0."""
        said = torch.tensor([claim], dtype=torch.uint8)
        dist.broadcast(said, 0)
        return bool(said[0])

    def all(self, claim: bool) -> bool:
        """Waits for every rank."""
        said = torch.tensor([claim], dtype=torch.uint8)
        self._waits(True)
        dist.all_reduce(said, dist.ReduceOp.MIN)
        self._waits(False)
        return bool(said[0])

    def spread(self, content: bytes) -> bytes:
        """By `exchange.spread`, in the group of all collectives."""
        return exchange.spread(content, self.rank)

    def gather(self, content: bytes) -> list[bytes]:
        """By `exchange.gather`, in the group of all collectives."""
        return exchange.gather(content, self.world)

    def to_save(self, model: nn.Module, optimizer: optim.Optimizer) -> tuple[Weights, Moments]:
        """As they are on rank 0; all ranks have the same."""
        return state_of(model, optimizer) if self.rank == 0 else ({}, {})

    def _ask(self, figures: Tensor, apart: int, *, is_struck: bool = False) -> Asked:
        """With whether orders wait, whether this rank was struck, and its count, as words."""
        words = (not self._own.empty(), is_struck, *self._finite.words())
        shape = torch.Size((self.world, apart))
        self._asked = agreement.ask(figures, words, self.rank, shape, is_struck=is_struck)
        return self._asked

    def _apart(self, count: int, losses: int) -> int:
        """How many of `count` figures, from the first, each rank has in slots of its own."""
        return losses

    def _combined(self, by_rank: Tensor, losses: int) -> Tensor:
        """One figure of those that the ranks have apart, (ranks, figures)."""
        return by_rank.mean(0)


def join(
    own: Orders,
    waits: Callable[[bool], None] = lambda _is_waiting: None,
    environment: Mapping[str, str] = os.environ,
    *,
    leads: bool = True,
) -> Ranks:
    """The group that this process was started in, or nobody; waits for all ranks of a group.

    `leads` is whether this node has rank 0.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return Alone(own)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment["LOCAL_RANK"]) % torch.cuda.device_count())
    store, rank, world = next(rendezvous("env://"))
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):
        # torchrun keeps one store for all its restarts, where gloo would find the addresses of ranks that are gone.
        store = dist.PrefixStore(f"attempt-{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]  # it does not list its own names
    else:
        rank = _behind_leader(store, rank, world, is_first=leads and environment["LOCAL_RANK"] == "0")
    dist.init_process_group(store=store, rank=rank, world_size=world)
    return Group(own, waits)


def _behind_leader(store: Store, rank: int, world: int, *, is_first: bool) -> int:
    """The ranks turned round so that those of the leading node come first.

    torchrun orders nodes by address, and cannot be told which is to have rank 0.
    """
    if is_first:
        store.set("first", str(rank))
    return (rank - int(store.get("first"))) % world


def leave() -> None:
    """Let go of the group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
