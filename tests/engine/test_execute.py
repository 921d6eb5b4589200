"""The innermost ring: gradients of the mean loss over micro-batches, and nothing judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from ampd.core.precision import Precision
from ampd.engine.execute import Execute, clear_gradients
from ampd.engine.stages.autocast import forward_context
from ampd.engine.window import Attempt, MicroBatch, Verdict, Window
from ampd.errors import WorkloadError
from tests.engine import toy


class Linear:
    """A workload of one weight vector: the loss is the mean of x @ w, so gradients are means of x."""

    def __init__(self, loss: Callable[[Tensor], Tensor] | None = None) -> None:
        self.weight = nn.Parameter(torch.tensor([[1.0], [2.0]]))
        self._loss = loss or (lambda y: y.mean())

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The mean of the products."""
        return self._loss(micro_batch.tensors["x"] @ self.weight)

    def run(self, *rows: list[list[float]], **fields: Any) -> Any:
        """The outcome of an attempt at a window with these micro-batches."""
        micro_batches = tuple(MicroBatch(tensors={"x": torch.tensor(x)}, samples=len(x)) for x in rows)
        window = Window(number=0, epoch=0, micro_batches=micro_batches)
        attempt = replace(Attempt(window=window, precision=Precision.FLOAT32), **fields)
        return Execute(self, [self.weight], toy.CPU)(attempt)  # type: ignore[call-arg,unused-ignore]  # may grow

    @property
    def gradient(self) -> list[float]:
        """The gradient that the last attempt left."""
        assert self.weight.grad is not None
        values: list[float] = self.weight.grad.flatten().tolist()
        return values


def test_the_gradient_is_that_of_the_mean_loss() -> None:
    """Each micro-batch counts the same."""
    workload = Linear()

    workload.run([[1.0, 0.0]], [[0.0, 4.0]], [[2.0, 2.0]])

    assert workload.gradient == pytest.approx([1.0, 2.0])


def test_losses_are_reported_per_micro_batch() -> None:
    """One float32 loss for each, unscaled, on the device, part of no graph."""
    outcome = Linear().run([[1.0, 0.0]], [[0.0, 4.0]], loss_scale=torch.tensor([64.0]))

    assert outcome.losses.tolist() == [1.0, 8.0]
    assert (outcome.losses.dtype, outcome.losses.requires_grad) == (torch.float32, False)


def test_one_micro_batch_is_a_window() -> None:
    """Its loss is reported in the same shape."""
    workload = Linear()

    outcome = workload.run([[1.0, 3.0]])

    assert outcome.losses.tolist() == [7.0]
    assert workload.gradient == [1.0, 3.0]


def test_the_loss_is_scaled_before_backward() -> None:
    """The gradients that come out are those of the loss times the scale."""
    workload = Linear()

    workload.run([[1.0, 0.0]], [[0.0, 4.0]], loss_scale=torch.tensor([8.0]))

    assert workload.gradient == [4.0, 16.0]


def test_every_attempt_begins_without_gradients() -> None:
    """What an earlier attempt left does not add up."""
    workload = Linear()

    for _ in range(3):
        workload.run([[1.0, 3.0]])

    assert workload.gradient == [1.0, 3.0]


def test_nothing_is_judged() -> None:
    """Only the stage in slot SCALE knows what is finite."""
    outcome = Linear().run([[float("nan"), 0.0]])

    assert outcome.verdict is Verdict.UNJUDGED
    assert outcome.cause is None


class Backward(torch.autograd.Function):
    """The identity, which remembers whether autocast was on in forward and in backward."""

    seen: ClassVar[list[tuple[str, bool]]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Backward.seen.append(("forward", torch.is_autocast_enabled("cpu")))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        Backward.seen.append(("backward", torch.is_autocast_enabled("cpu")))
        return gradient


def test_autocast_covers_forward_and_loss_but_not_backward() -> None:
    """The context is entered for each micro-batch anew and left before its backward."""
    Backward.seen = []

    def loss(y: Tensor) -> Tensor:
        passed: Tensor = Backward.apply(y)  # type: ignore[no-untyped-call]  # torch's own
        return passed.float().mean()

    Linear(loss).run([[1.0, 0.0]], [[0.0, 1.0]], forward_context=forward_context(Precision.BFLOAT16, "cpu"))

    assert Backward.seen == [("forward", True), ("backward", False)] * 2


def test_a_low_precision_loss_is_reported_in_float32() -> None:
    """A workload may return what autocast gave it."""
    outcome = Linear().run([[1.0, 0.0]], forward_context=forward_context(Precision.BFLOAT16, "cpu"))

    assert outcome.losses.dtype is torch.float32


def test_micro_batches_are_read_only() -> None:
    """What a window was made of is the same after an attempt, so that it can be run again."""
    workload = toy.Toy()
    window = toy.window(0, workload)
    before = [{name: t.clone() for name, t in m.tensors.items()} for m in window.micro_batches]

    parameters = list(workload.model.parameters())
    Execute(workload, parameters, toy.CPU)(Attempt(window=window, precision=Precision.FLOAT32))

    for micro_batch, copies in zip(window.micro_batches, before, strict=True):
        assert all(torch.equal(micro_batch.tensors[name], copy) for name, copy in copies.items())


def test_clearing_drops_gradients() -> None:
    """None, not zero: the next backward allocates instead of adding."""
    parameter = nn.Parameter(torch.ones(1))
    parameter.grad = torch.ones(1)

    clear_gradients([parameter])

    assert parameter.grad is None


@pytest.mark.parametrize(
    ("loss", "given"),
    [(lambda y: y.flatten(), r"a tensor of shape \(2,\)"), (lambda y: y.mean().item(), "float"), (lambda _y: None, "NoneType")],
)  # fmt: skip
def test_a_loss_that_is_no_scalar_is_refused(loss: Callable[[Tensor], Any], given: str) -> None:
    """In words of a workload's author, where backward would speak of grad_fn and implicit gradients."""
    with pytest.raises(WorkloadError, match=rf"loss\(\) returned {given}, expected a scalar tensor"):
        Linear(loss).run([[1.0, 0.0], [0.0, 1.0]])
