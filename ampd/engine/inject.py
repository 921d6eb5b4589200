"""Faults on demand, to rehearse alerts and to test: real numerics, not simulated flags.

The loss is wrapped, only where the job file allows it. `overflow` adds zero times a product that autocast runs
in low precision: 60000 x 60000 is infinite in float16 (and zero times it NaN), finite in bfloat16 and float32, where
the loss stays bit for bit what it was. So the fault vanishes under a fallback exactly as a real overflow does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ampd.core.messages import Fault
from ampd.engine.ranks import Alone, Ranks
from ampd.engine.window import MicroBatch
from ampd.engine.workload import Workload
from ampd.errors import ConfigError


class Injector:
    """Arms faults for coming windows; `enter` is called by the loop as each window begins."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self._ranks = ranks or Alone()
        self._fault: Fault | None = None
        self._rank: int | None = None
        self._left = 0
        self._largest = 0
        self.active: Fault | None = None

    def arm(self, fault: Fault, windows: int, rank: int | None = None) -> None:
        """Make the next `windows` windows go wrong, on one rank or on all; raises ConfigError where there is no such rank.

        All ranks are told alike, since what is armed is part of the state that they have in common.
        """
        if fault == "diverge" and (rank is None or self._ranks.world == 1):
            raise ConfigError(
                "diverge makes one rank of several unlike the rest", field="rank",
                hint="say which, --rank N; a job of one process has nothing to compare",
            )  # fmt: skip
        if rank is not None and rank >= self._ranks.world:
            last = self._ranks.world - 1
            raise ConfigError(
                f"there is no rank {rank}: this job has {f'ranks 0 to {last}' if last else 'rank 0 only'}",
                field="rank", hint="leave it out for a fault on all ranks",
            )  # fmt: skip
        self._fault, self._left, self._rank = fault, windows, rank

    def enter(self, samples: int = 0) -> None:
        """A window begins, with so many samples at once where it is undivided; its replays meet the same fault."""
        self._largest = max(self._largest, samples)
        is_here = self._left > 0 and self._rank in (None, self._ranks.rank)
        self.active = self._fault if is_here else None
        self._left = max(0, self._left - 1)

    def state_dict(self) -> dict[str, Any]:
        """What is still armed."""
        return {"fault": self._fault, "left": self._left, "rank": self._rank}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Arm what was armed."""
        self._fault, self._left, self._rank = state["fault"], state["left"], state.get("rank")

    def corrupt(self, parameters: Sequence[Tensor]) -> None:
        """Change one number of the weights, where that is armed, as a device does that computes wrong."""
        if self.active == "diverge":
            with torch.no_grad():
                parameters[0].view(-1)[0].add_(1.0)

    def limit_memory(self, micro_batch: MicroBatch) -> None:
        """Run out of memory, where that is armed, for the largest micro-batch that was seen; its parts fit."""
        self._largest = max(self._largest, micro_batch.samples)
        if self.active == "oom" and micro_batch.samples == self._largest:
            raise torch.OutOfMemoryError(f"injected: no memory for {micro_batch.samples} samples at once")

    def burden(self, loss: Tensor, micro_batch: MicroBatch) -> Tensor:
        """The same for its backward pass."""
        if self.active != "oom-backward" or micro_batch.samples < self._largest:
            return loss
        burdened: Tensor = _ShortBackward.apply(loss)  # type: ignore[no-untyped-call]  # torch's
        return burdened

    def disturb(self, loss: Tensor) -> Tensor:
        """The loss, with the active fault in it."""
        match self.active:
            case "overflow":
                return loss + _overflow(loss.device)
            case "nan-loss":
                return loss * float("nan")
            case "constant":
                _constant(loss.device.type)
            case "nan-grad":
                poison: Tensor = _NanGradient.apply(loss)  # type: ignore[no-untyped-call]  # torch's
                return loss + poison
        return loss


class FaultyWorkload:
    """The loss of a workload, passed through an injector: what `execute` runs where injection is allowed."""

    def __init__(self, workload: Workload, injector: Injector) -> None:
        self._workload = workload
        self._injector = injector

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The workload's loss, disturbed."""
        self._injector.limit_memory(micro_batch)
        return self._injector.burden(self._injector.disturb(self._workload.loss(micro_batch)), micro_batch)


def _overflow(device: torch.device) -> Tensor:
    large = torch.full((1, 1), 60000.0, device=device)
    return (torch.mm(large, large) * 0.0).float().sum()


def _constant(device_type: str) -> None:
    """What `masked_fill(-1e9)` does: raises in float16 alone. (`fill_` does not: it writes -inf.)"""
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else torch.float32
    torch.zeros((), dtype=dtype).masked_fill(torch.tensor(True), -1e9)


class _NanGradient(torch.autograd.Function):
    """Zero forward, NaN backward: gradients go wrong under a loss that looks fine."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return torch.zeros_like(loss)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, float("nan"))


class _ShortBackward(torch.autograd.Function):
    """The identity, until gradients come back through it."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("injected: no memory for the gradients of so many samples at once")
