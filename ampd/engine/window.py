"""The data of one optimizer update: what goes into the step pipeline and what comes out. All of it frozen.

A *window* is the micro-batches of one update; an *attempt* is one execution of it at one precision; an *outcome* is
what an attempt gave, with a *verdict* that is never a boolean defaulting to fine. Losses, norm and flags stay
on the device; reading them is a host sync, and only `scaler` (sync) and the loop's report do it.

Structs of msgspec and not dataclasses, because every window makes and replaces a few: a frozen dataclass sets its
fields one by one in Python, which for an outcome takes 3.4 us where a struct takes 0.2 us.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import msgspec
from msgspec.structs import replace
from torch import Tensor

from ampd.core.faults import Fault
from ampd.core.ledger import Cause
from ampd.core.precision import Precision
from ampd.engine.letter import Letter
from ampd.engine.mark import Mark
from ampd.errors import PipelineError

ForwardContext = Callable[[], AbstractContextManager[object]]


class Verdict(enum.Enum):
    """What is known of an attempt's finiteness."""

    UNJUDGED = "unjudged"  # nobody looked: only `execute` returns this
    PENDING = "pending"  # the flag is on the device, the host has not read it
    FINITE = "finite"
    NONFINITE = "nonfinite"


class MicroBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Named input tensors, first dimension the samples; read-only, on the host until they are used.

    `tokens` is for throughput only (0 where the notion does not apply).
    """

    tensors: Mapping[str, Tensor]
    samples: int
    tokens: int = 0

    def to(self, device: object) -> MicroBatch:
        """The same micro-batch on `device`; asynchronous from pinned memory."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}  # type: ignore[call-overload]  # device is torch's own union
        return replace(self, tensors=moved)

    def parts(self, count: int) -> tuple[MicroBatch, ...]:
        """At most `count` parts along the first dimension, as even as can be; views, no copies."""
        pieces = {
            name: tensor.tensor_split(min(count, self.samples)) for name, tensor in self.tensors.items()
        }
        sizes = [len(part) for part in next(iter(pieces.values()))]
        return tuple(
            replace(
                self,
                tensors={name: split[index] for name, split in pieces.items()},
                samples=size,
                tokens=self.tokens * size // self.samples,
            )
            for index, size in enumerate(sizes)
        )


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The micro-batches of update `number` (0-based over the whole job)."""

    number: int
    epoch: int
    micro_batches: tuple[MicroBatch, ...]

    @property
    def samples(self) -> int:
        """Samples in all micro-batches."""
        return sum(m.samples for m in self.micro_batches)

    @property
    def tokens(self) -> int:
        """Tokens in all micro-batches."""
        return sum(m.tokens for m in self.micro_batches)

    def largest_share(self, world: int) -> int:
        """Samples in the largest part that one of `world` ranks runs at once, undivided."""
        return -(-max(m.samples for m in self.micro_batches) // world)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a window: at which precision, in which context, with which loss scale.

    CAST fills `forward_context`, SCALE fills `loss_scale` (a one-element float32 tensor on the device, or None for an
    unscaled loss). `rung` is 0 for the first attempt and counts replays. `is_deferred` asks for a PENDING verdict,
    which the host reads one window later; an attempt that settles a pending outcome which came out bad carries it
    in `resolves`, and RECOVER then begins with the replay. `split` divides each micro-batch, for want of memory.
    """

    window: Window
    precision: Precision
    forward_context: ForwardContext = nullcontext
    loss_scale: Tensor | None = None
    rung: int = 0
    is_deferred: bool = False
    resolves: Outcome | None = None
    split: int = 1

    def at(self, precision: Precision) -> Attempt:
        """The next attempt at the same window, one rung down the ladder."""
        return replace(
            self, precision=precision, rung=self.rung + 1, loss_scale=None, is_deferred=False, resolves=None
        )


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt gave. Gradients are in the parameters' `.grad`, unscaled once SCALE has judged.

    `losses`: (micro-batches,) float32, unscaled, on the device. `grad_norm`: scalar, over all gradients after
    unscaling, before clipping. `has_strayed`: a module buffer became inf or NaN. `zeros`: the share of gradients that are 0, in float16 without a scale only. `loss`, `norm` and `scale` are their host copies where the host has read them, and
    `replays` the rungs tried so far, oldest first. A PENDING outcome has `found` (a (1,) float32 flag on the device,
    exactly 0 or 1, which gates its commit), the `letter` in which its figures travel, and the `mark` to go back to.
    `struck` is the error that kept this rank of several from running the attempt to its end, and `was_struck`, once it
    is judged, whether there was one on any rank: such an outcome is NONFINITE, and its figures mean nothing.
    """

    attempt: Attempt
    losses: Tensor
    verdict: Verdict = Verdict.UNJUDGED
    grad_norm: Tensor | None = None
    loss: float = float("nan")
    norm: float = float("nan")
    scale: float | None = None
    zeros: float | None = None
    cause: Cause | None = None
    replays: tuple[tuple[Cause, str], ...] = ()
    clipped: bool = False
    has_strayed: bool = False
    was_struck: bool = False
    struck: RuntimeError | None = None
    found: Tensor | None = None
    letter: Letter | None = None
    mark: Mark | None = None


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A window whose commit was gated on the device and whose verdict the host has not read."""

    outcome: Outcome
    lr: float
    fault: Fault | None


def flag_of(outcome: Outcome) -> Tensor:
    """The device flag of a pending outcome; raises PipelineError where a stage left it out."""
    if outcome.found is None:
        raise PipelineError(
            "a pending outcome came without its flag; the stage in slot SCALE must set `found`"
        )
    return outcome.found
