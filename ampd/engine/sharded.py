"""FSDP2: each rank keeps, and updates, its rows of every weight; the blocks of a model are gathered one at a time.

torch does the work (`fully_shard`): a block's weights are gathered right before it runs, in the forward and again in the
backward pass, and let go after; its gradients are summed and scattered to the ranks that own their rows. What is here
fits that to the window:

- *What is gathered together.* The workload may say (`shards()`); else it is every module that stands more than once, with
  its like, in a ModuleList or Sequential and has modules of its own: the layers of a transformer, the blocks of a residual
  stage. Everything else is in the root, gathered for the length of the window. The root is the loss itself and not the
  model, so that a workload may call any part of its model, use a weight directly, or evaluate (`using`).
- *Plain tensors from the backward pass on.* A sharded weight is a DTensor; the optimizer is built over its local rows, which
  share their memory with it, and `collect` hands the rows' gradients over. So unscaling, clipping, the gate and the fused
  optimizers are those of a process that is alone (torch gives DTensors fused Adam, but no fused SGD), and none of them
  can start a collective that nobody counted.
- *One collective more than torch's own, as under DDP.* The norm of all gradients is the root of a sum, which a MAX does
  not give; so each rank's norm travels in a slot of its own, as its losses do, and every rank adds the same numbers in
  the same order. What comes out is equal on all ranks to the bit.
- *No MixedPrecisionPolicy.* It would fix the dtype of gathered weights when the model is wrapped, and the ladder has to
  lift it for a replay in true float32. Weights are gathered in their own dtype and cast by autocast, inside the
  attempt's context, as everywhere else. The price: twice the bytes on the wire that bfloat16 would need, and the cast copies
  live from a block's forward to its backward pass.
- *Accumulation* keeps whole gradients until the window's last pass (`set_requires_gradient_sync`), which takes the memory of
  all weights; with `amp.enable_distributed_accumulation = false` every pass scatters, and only rows are kept.

An error in the middle of a pass leaves gathered weights and open collectives behind, here and on ranks that met none; it
is not mended in place (`is_sharded`). Sums are made by adding and dividing, never by AVG, which gloo lacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ampd.engine import exchange
from ampd.engine.distributed import Group
from ampd.engine.ranks import Moments, Orders, Peers, T, Weights, state_of
from ampd.engine.rows import Rows, rows, size_of_rows
from ampd.engine.window import MicroBatch
from ampd.engine.workload import HasLoss, Sharding, Workload
from ampd.errors import WorkloadError


class Shards(Group):
    """One rank of several that share the weights; `place` comes before all else."""

    is_sharded = True

    def __init__(self, own: Orders) -> None:
        super().__init__(own)
        self._root: FSDPModule
        self._rows: list[
            tuple[DTensor, nn.Parameter]
        ] = []  # a weight of the model, and what this rank has of it
        self._portions: Tensor  # (ranks, 1): how much of all weights each rank has
        self._is_holding = False

    def place(self, workload: Workload, device: torch.device) -> Sequence[nn.Parameter]:
        """This rank's rows, on the device; raises WorkloadError for a weight that cannot be divided."""
        model = workload.model.train()
        require_rows(model)
        self.align(lambda: [p.detach() for p in model.parameters()])
        mesh = init_device_mesh(device.type, (self.world,))
        for block in blocks_of(workload):
            _divide(block, mesh)
        self._root = _divide(_Root(model), mesh)
        self._rows = [(whole, _rows_of(whole)) for whole in _sharded(model) if whole.requires_grad]
        sizes = [
            sum(size_of_rows(w.shape, rank, self.world) for w, _own in self._rows)
            for rank in range(self.world)
        ]
        self._portions = torch.tensor([[size / max(sum(sizes), 1)] for size in sizes], device=device)
        return [own for _whole, own in self._rows]

    def passes(self, micro_batch: MicroBatch, split: int) -> int:
        """No more than the smallest part has samples: every pass gathers weights, with every rank."""
        return min(split, micro_batch.samples // self.world)

    def join(self, workload: HasLoss, model: nn.Module, *, accumulate: bool) -> HasLoss:
        """The loss in the root, where weights are gathered."""
        self._accumulates = accumulate
        return _InRoot(self._root, workload)

    def accumulating(self, *, parts: bool = False) -> AbstractContextManager[object]:
        """Passes that scatter nothing; between micro-batches not where `amp.enable_distributed_accumulation` is off."""
        return self._holding_back() if self._accumulates or parts else nullcontext()

    def kept(self, error: RuntimeError) -> RuntimeError:
        """None: see above."""
        raise error

    def collect(self) -> None:
        """From the weights to their rows."""
        for whole, own in self._rows:
            gradient, whole.grad = whole.grad, None
            own.grad = None if gradient is None else _local(gradient)

    def weights(self, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor]:
        """Those of the root and of the block that runs."""
        every = cast(nn.Module, self._root).parameters()
        return [p for p in every if p.requires_grad and not isinstance(p, DTensor)]

    def using(self, act: Callable[[], T]) -> T:
        """In the root, whose weights are let go again: nothing but a backward pass does that by itself."""
        try:
            result: T = cast(nn.Module, self._root)(act)
            return result
        finally:
            self._root.reshard()

    def to_save(self, model: nn.Module, optimizer: optim.Optimizer) -> tuple[Weights, Moments]:
        """Rows of what is shared; the rest, which all ranks have alike, is for rank 0."""
        weights, moments = state_of(model, optimizer)
        of = self._weights_of(optimizer)
        return self._own_of({name: _part(value) for name, value in weights.items()}), {
            number: self._own_of({key: _part(_like(value, of[number])) for key, value in entry.items()})
            for number, entry in moments.items()
        }

    def to_load(
        self, weights: Weights, moments: Moments, model: nn.Module, optimizer: optim.Optimizer
    ) -> tuple[Weights, Moments]:
        """This rank's rows of it."""
        present, of = model.state_dict(), self._weights_of(optimizer)
        return {name: _dealt(value, present.get(name)) for name, value in weights.items()}, {
            number: {key: _local(_dealt(value, of[number])) for key, value in entry.items()}
            for number, entry in moments.items()
        }

    def beside(self) -> Peers:
        """A group of its own; all ranks ask for it at the same time."""
        group = dist.new_group(backend="gloo")
        assert isinstance(group, ProcessGroup), "every rank is in it"
        return Beside(self.rank, self.world, group)

    def _apart(self, count: int, losses: int) -> int:
        """Beside the losses, the norm and the share of zeros: all that is of gradients, of which a rank has its rows."""
        return count - 2

    def _combined(self, by_rank: Tensor, losses: int) -> Tensor:
        norm = torch.linalg.vector_norm(by_rank[:, losses]).reshape(1)
        shares = by_rank[:, losses + 1 :].mul(self._portions).sum(0)
        return torch.cat((by_rank[:, :losses].mean(0), norm, shares))

    @contextmanager
    def _holding_back(self) -> Iterator[None]:
        """Scopes nest, since parts of a micro-batch wait within micro-batches that wait: the outermost lets go."""
        was_holding, self._is_holding = self._is_holding, True
        self._root.set_requires_gradient_sync(False)
        yield
        self._is_holding = was_holding
        self._root.set_requires_gradient_sync(not was_holding)

    def _weights_of(self, optimizer: optim.Optimizer) -> list[DTensor]:
        """The weight of each parameter of the optimizer, by number."""
        wholes = {own: whole for whole, own in self._rows}
        return [wholes[own] for group in optimizer.param_groups for own in group["params"]]

    def _own_of(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        return {name: leaf for name, leaf in leaves.items() if self.rank == 0 or isinstance(leaf, Rows)}


class Beside:
    """A channel of gloo for the threads that write; torch lets two threads have a group each, and not one together."""

    def __init__(self, rank: int, world: int, group: ProcessGroup) -> None:
        self.rank, self.world = rank, world
        self._group = group

    def gather(self, content: bytes) -> list[bytes]:
        """What every rank gives, by rank; waits for all of them."""
        return exchange.gather(content, self.world, self._group)


class _Root(nn.Module):
    """The module whose weights are gathered while anything is done with the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, act: Callable[..., Any], *given: object) -> Any:
        return act(*given)


class _InRoot:
    def __init__(self, root: FSDPModule, workload: HasLoss) -> None:
        self._root = cast(nn.Module, root)
        self._workload = workload

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The loss, with FSDP's hooks around it."""
        loss: Tensor = self._root(self._workload.loss, micro_batch)
        return loss


def blocks_of(workload: Workload) -> Iterable[nn.Module]:
    """The modules that are gathered one at a time."""
    return workload.shards() if isinstance(workload, Sharding) else _repeated(workload.model)


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    """Entries that stand in a row with their like and are made of modules; the outermost, in order."""
    is_row = isinstance(module, (nn.ModuleList, nn.Sequential))
    kinds = Counter(type(child) for child in module.children()) if is_row else Counter()
    for child in module.children():
        is_callable = not isinstance(child, (nn.ModuleList, nn.ModuleDict))
        if kinds[type(child)] > 1 and is_callable and any(True for _ in child.children()):
            yield child
        else:
            yield from _repeated(child)


def require_rows(model: nn.Module) -> None:
    """Raise WorkloadError for a weight that has none."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0 or not parameter.is_contiguous():
            raise WorkloadError(
                f"{name} of shape {list(parameter.shape)} cannot be divided by rows, as fsdp2 does with every weight; "
                'make it a contiguous tensor of one dimension or more, or use distributed.strategy = "ddp"'
            )


def _divide(module: nn.Module, mesh: DeviceMesh) -> FSDPModule:
    divided = fully_shard(module, mesh=mesh)
    divided.set_force_sum_reduction_for_comms(True)
    return divided


def _sharded(model: nn.Module) -> list[DTensor]:
    return [p for p in model.parameters() if isinstance(p, DTensor)]


def _rows_of(whole: DTensor) -> nn.Parameter:
    """A parameter of this rank's rows, in the same memory."""
    return nn.Parameter(_local(whole))


def _local(tensor: Any) -> Any:
    """This rank's rows of a DTensor, in the same memory; anything else as it is."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _part(value: Any) -> Any:
    """A DTensor as the rows of it that this rank has; anything else as it is."""
    if not isinstance(value, DTensor):
        return value
    mesh = value.device_mesh
    return Rows(_local(value), tuple(value.shape), rows(len(value), mesh.get_local_rank(), mesh.size()).start)


def _like(value: Any, weight: DTensor) -> Any:
    """What has the shape of this rank's rows of `weight` as rows of a whole; anything else as it is."""
    local = _local(weight)
    if not isinstance(value, Tensor) or value.shape != local.shape:
        return value
    return DTensor.from_local(
        value.to(local.device),
        weight.device_mesh,
        weight.placements,
        run_check=False,
        shape=weight.shape,
        stride=weight.stride(),
    )


def _dealt(value: Any, weight: Any) -> Any:
    """This rank's rows of a weight, from a saved value of the whole or of just these; anything else as it is."""
    if not isinstance(weight, DTensor) or not isinstance(value, Tensor):
        return value
    if value.shape == weight.shape:
        own = rows(len(value), weight.device_mesh.get_local_rank(), weight.device_mesh.size())
        value = value[own.start : own.stop]
    return _like(value, weight)
