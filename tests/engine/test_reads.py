"""The counter of host reads counts every way to read a tensor, and nothing that leaves the host alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor

from tests.engine.reads import HostReads

ONE, SOME, COUNTS = torch.ones(1), torch.arange(3.0), torch.arange(3)
MASK = torch.tensor([True, False, True])
ELSEWHERE = torch.empty(3, device="meta")  # stands in for a device: a copy from it counts, and then fails

# Lambdas throughout: a method that was looked up before the scope is not the counted one.
WAYS: dict[str, Callable[[], object]] = {
    "item": lambda: ONE.item(),
    "float": lambda: float(ONE),
    "int": lambda: int(ONE),
    "bool": lambda: bool(ONE),
    "complex": lambda: complex(ONE),
    "index": lambda: [1, 2][COUNTS[1]],
    "if": lambda: 1 if SOME.isfinite().all() else 0,
    "tolist": lambda: SOME.tolist(),
    "numpy": lambda: SOME.numpy(),
    "array": lambda: SOME.__array__(),  # type: ignore[no-untyped-call]  # torch's own
    "dlpack": lambda: SOME.__dlpack__(),
    "cpu": lambda: SOME.cpu(),
    "to the host": lambda: ELSEWHERE.to("cpu"),
    "copied to the host": lambda: SOME.clone().copy_(ELSEWHERE),
    "equal": lambda: torch.equal(SOME, SOME),
    "allclose": lambda: torch.allclose(SOME, SOME),
    "is_nonzero": lambda: torch.is_nonzero(ONE),
    "contains": lambda: 1.0 in SOME,
    "nonzero": lambda: SOME.nonzero(),
    "argwhere": lambda: SOME.argwhere(),
    "where": lambda: torch.where(MASK),
    "masked_select": lambda: SOME.masked_select(MASK),
    "boolean index": lambda: SOME[MASK],
    "boolean assignment": lambda: SOME.clone().__setitem__(MASK, 0.0),
    "unique": lambda: SOME.unique(),  # type: ignore[no-untyped-call]  # torch's own
    "unique_consecutive": lambda: SOME.unique_consecutive(),  # type: ignore[no-untyped-call]  # torch's own
    "bincount": lambda: COUNTS.bincount(),
    "repeat_interleave": lambda: torch.repeat_interleave(COUNTS),
    "checked inverse": lambda: torch.linalg.inv(torch.eye(2)),
    "storage": lambda: SOME.untyped_storage()[0],
    "repr": lambda: repr(SOME),
    "str": lambda: str(SOME),
    "format": lambda: f"{ONE[0]:.1f}",
    "pickle": lambda: pickle.dumps(SOME),
}

HARMLESS: dict[str, Callable[[], object]] = {
    "arithmetic": lambda: (SOME * ONE + 1.0).sum(),
    "finiteness": lambda: SOME.isfinite().all(),
    "select": lambda: torch.where(MASK, SOME, 0.0),
    "integer index": lambda: SOME[COUNTS],
    "slice": lambda: SOME[1:],
    "detach and copy": lambda: torch.empty(3).copy_(SOME.detach()),
    "same device": lambda: SOME.to("cpu"),
    "conversion": lambda: SOME.double(),
    "to the device": lambda: SOME.to("meta"),
    "queued copy": lambda: SOME.clone().copy_(ELSEWHERE, non_blocking=True),
    "scaling by a tensor": lambda: torch._foreach_mul([SOME.clone()], ONE[0]),
    "shape": lambda: (len(SOME), SOME.shape, SOME.numel(), SOME.dtype),
    "generator": torch.get_rng_state,
}


def reads_of(way: Callable[[], object]) -> list[str]:
    """What is counted while `way` runs; a copy from `meta` fails after it was counted."""
    with HostReads() as reads, suppress(NotImplementedError):
        way()
    return reads.ways


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_read_is_counted_once(way: str) -> None:
    """One expression that hands a value to the host is one read."""
    assert len(reads_of(WAYS[way])) == 1


@pytest.mark.parametrize("way", HARMLESS)
def test_what_stays_on_the_device_is_not_counted(way: str) -> None:
    """Work that is queued, and questions about shape, cost the host nothing."""
    assert reads_of(HARMLESS[way]) == []


def test_reads_are_counted_in_backward_too() -> None:
    """A read that a backward pass hides in an autograd function is found."""

    class Peeks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            gradient.item()
            return gradient

    x = torch.ones((), requires_grad=True)
    y: Tensor = Peeks.apply(x)  # type: ignore[no-untyped-call]  # torch's own

    assert reads_of(lambda: y.backward()) == ["_local_scalar_dense"]  # type: ignore[no-untyped-call]  # torch's own


def test_parameters_are_watched() -> None:
    """A parameter's own methods are those of tensors."""
    parameter = torch.nn.Parameter(torch.ones(2))

    assert reads_of(lambda: parameter.tolist()) == ["tolist"]


def test_the_scope_leaves_tensors_as_they_were() -> None:
    """After the scope, also one that failed, nothing is patched."""
    before = {name: getattr(Tensor, name) for name in ("tolist", "numpy", "cpu", "__repr__", "__reduce_ex__")}

    with suppress(ZeroDivisionError), HostReads():
        raise ZeroDivisionError

    assert {name: getattr(Tensor, name) for name in before} == before
    assert "tolist" not in Tensor.__dict__
