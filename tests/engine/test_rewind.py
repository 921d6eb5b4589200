"""Marks: every generator and buffer that a replay meets is where it was, and nothing else is touched."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ampd.engine.rewind import FlatBuffers, Rewind
from ampd.engine.window import MicroBatch
from tests.engine import toy


class Model(nn.Module):
    """Buffers of every kind: two floating ones, integers, booleans, a scalar, one in a child, one that is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("grid", torch.arange(6.0).view(2, 3))
        self.register_buffer("hits", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("mask", torch.tensor([True, False]), persistent=False)
        self.register_buffer("unset", None)
        self.child = nn.BatchNorm1d(2)
        self.weight = nn.Parameter(torch.ones(2))

    def disturb(self) -> None:
        """Change every buffer in place, as a forward pass does."""
        for buffer in self.buffers():
            buffer.copy_(torch.rand(buffer.shape) * 100)

    def replace(self, name: str) -> None:
        """Put a new tensor in the place of a buffer, as some modules do instead of writing into it."""
        setattr(self, name, getattr(self, name) * 2 + 1)


class Keeping:
    """A workload with state of its own."""

    windows_per_epoch = 1

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.memory = torch.zeros(2)

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """None; these tests need no data."""
        return iter(())

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """Never called."""
        raise AssertionError

    def capture(self) -> dict[str, Any]:
        """A copy of the memory."""
        return {"memory": self.memory.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a copy."""
        self.memory.copy_(state["memory"])


def rewind_of(model: nn.Module, *, host_rng: bool = False) -> Rewind:
    """Marks of a model in a workload without state."""
    workload: Any = toy.Toy()
    workload.model = model
    return Rewind(model, toy.CPU, workload, host_rng=host_rng)


def contents(model: nn.Module) -> dict[str, list[Any]]:
    """What all buffers hold."""
    return {name: buffer.flatten().tolist() for name, buffer in model.named_buffers()}


def test_buffers_go_back() -> None:
    """Floating, integer and boolean ones, of the model and of its children, persistent or not."""
    model = Model()
    rewind, before = rewind_of(model), contents(model)
    mark = rewind.mark()

    model.disturb()
    assert contents(model) != before
    rewind.restore(mark)

    assert contents(model) == before
    assert len(before) == 7


def test_flattening_keeps_buffers_as_they_are() -> None:
    """Names, shapes, dtypes, contents and the state dict are those of the untouched model."""
    plain, marked = Model(), Model()

    rewind_of(marked).mark()

    for (name, a), (other, b) in zip(plain.named_buffers(), marked.named_buffers(), strict=True):
        assert (name, a.shape, a.dtype) == (other, b.shape, b.dtype)
    assert contents(marked) == contents(plain)
    assert list(marked.state_dict()) == list(plain.state_dict())
    assert marked.unset is None


@pytest.mark.parametrize("name", ["mean", "hits", "mask"])
def test_a_buffer_replaced_after_the_mark_goes_back(name: str) -> None:
    """A module may assign a new tensor; the replay still meets the old contents."""
    model = Model()
    rewind, before = rewind_of(model), contents(model)
    mark = rewind.mark()

    model.replace(name)
    rewind.restore(mark)

    assert contents(model) == before


@pytest.mark.parametrize("name", ["mean", "hits", "mask"])
def test_a_buffer_replaced_before_the_mark_counts(name: str) -> None:
    """What is marked is what the module holds then, not what it held when the job began."""
    model = Model()
    rewind = rewind_of(model)
    model.replace(name)
    before = contents(model)
    mark = rewind.mark()

    model.disturb()
    rewind.restore(mark)

    assert contents(model) == before


@given(st.lists(st.sampled_from(["disturb", "replace", "mark", "restore"]), max_size=12))
def test_a_restore_gives_what_the_last_mark_saw(steps: list[str]) -> None:
    """However buffers were written, replaced and marked in between."""
    model = Model()
    rewind = rewind_of(model)
    mark, seen = rewind.mark(), contents(model)

    for step in steps:
        if step == "disturb":
            model.disturb()
        elif step == "replace":
            model.replace("grid")
        elif step == "mark":
            mark, seen = rewind.mark(), contents(model)
        else:
            rewind.restore(mark)
            assert contents(model) == seen


def test_a_mark_can_be_used_twice() -> None:
    """Every rung of a ladder goes back to the same one."""
    model = Model()
    rewind, before = rewind_of(model), contents(model)
    mark = rewind.mark()

    for _ in range(2):
        model.disturb()
        rewind.restore(mark)
        assert contents(model) == before


def test_a_model_without_buffers_can_be_marked() -> None:
    """There is nothing to copy."""
    rewind = rewind_of(nn.Linear(2, 2))

    rewind.restore(rewind.mark())


def test_parameters_are_left_alone() -> None:
    """Only a commit changes them, so a mark has nothing to do with them."""
    model = Model()
    rewind = rewind_of(model)
    mark = rewind.mark()

    with torch.no_grad():
        model.weight.fill_(7.0)
    rewind.restore(mark)

    assert model.weight.tolist() == [7.0, 7.0]


def test_a_buffer_that_two_modules_share_stays_shared() -> None:
    """A table that one module writes and another reads is one tensor."""
    model = nn.Sequential(nn.Module(), nn.Module())
    shared = torch.zeros(2)
    for module in model:
        module.register_buffer("table", shared)

    rewind_of(model).mark()
    model[0].get_buffer("table").fill_(1.0)

    assert model[1].get_buffer("table").tolist() == [1.0, 1.0]


def draws() -> tuple[float, float, float]:
    """One number of each generator."""
    return torch.rand(()).item(), random.random(), float(np.random.random())


def test_torchs_generator_always_goes_back() -> None:
    """Dropout draws from it, so a replay draws the same."""
    rewind = rewind_of(Model())
    mark = rewind.mark()
    first = draws()

    rewind.restore(mark)
    second = draws()

    assert second[0] == first[0]
    assert second[1:] != first[1:]


def test_host_generators_go_back_where_they_are_declared() -> None:
    """Python's and NumPy's too for a workload with `host_rng`, Gaussian leftovers included."""
    rewind = rewind_of(Model(), host_rng=True)
    np.random.standard_normal()
    random.gauss()
    mark = rewind.mark()

    first = (*draws(), random.gauss(), np.random.standard_normal())
    rewind.restore(mark)

    assert (*draws(), random.gauss(), np.random.standard_normal()) == first


def test_a_mark_without_generators_leaves_them_running() -> None:
    """Where no replay can follow, generators are not marked, and restoring does not move them."""
    rewind = rewind_of(Model(), host_rng=True)
    torch.manual_seed(1)
    expected = [torch.rand(()).item() for _ in range(2)]
    torch.manual_seed(1)

    mark = rewind.mark(rng=False)
    first = torch.rand(()).item()
    rewind.restore(mark)

    assert [first, torch.rand(()).item()] == expected


def test_generators_survive_a_checkpoint() -> None:
    """Their states are tensors and plain data; lists in the place of tuples are taken back."""
    rewind = rewind_of(Model(), host_rng=True)
    states = rewind.generators()
    version, internal, gauss = states["python"]
    first = draws()

    rewind.set_generators({**states, "python": [version, list(internal), gauss]})

    assert draws() == first


def test_the_workloads_own_state_goes_back() -> None:
    """What lives outside of the model's buffers is captured and restored with the rest."""
    workload = Keeping(Model())
    rewind = Rewind(workload.model, toy.CPU, workload)
    mark = rewind.mark()

    workload.memory.fill_(5.0)
    rewind.restore(mark)

    assert workload.memory.tolist() == [0.0, 0.0]


def test_restoring_the_state_leaves_generators() -> None:
    """A window that was not applied leaves no NaN behind, but its randomness was used."""
    model = Model()
    rewind, before = rewind_of(model), contents(model)
    torch.manual_seed(2)
    expected = [torch.rand(()).item() for _ in range(2)]
    torch.manual_seed(2)
    mark = rewind.mark()

    first = torch.rand(()).item()
    for buffer in model.buffers():
        buffer.zero_()
    rewind.restore_state(mark)

    assert contents(model) == before
    assert [first, torch.rand(()).item()] == expected


@given(seed=st.integers(0, 2**31 - 1), windows=st.integers(1, 3))
def test_running_again_from_a_mark_gives_the_same(seed: int, windows: int) -> None:
    """Mark, run, restore, run: dropout, BatchNorm and losses come out twice the same, bit for bit."""
    workload = toy.Toy(seed)
    rewind = Rewind(workload.model, toy.CPU, workload)
    batches = [toy.window(number, workload).micro_batches[0] for number in range(windows)]
    mark = rewind.mark()

    def once() -> tuple[list[float], dict[str, list[Any]]]:
        losses = [workload.loss(batch).item() for batch in batches]
        return losses, contents(workload.model)

    first = once()
    rewind.restore(mark)

    assert once() == first


class Masked(nn.Module):
    """A model with a mask of -inf in a buffer, as attention has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.BatchNorm1d(3)
        self.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))


def test_a_mask_of_minus_infinity_is_no_stray() -> None:
    """What was not finite from the start is meant so; what becomes so is not."""
    workload = toy.Toy()
    workload.model = Masked()
    rewind = Rewind(workload.model, toy.CPU, workload)
    before = rewind.strays().item()

    workload.model.get_buffer("layer.running_var").fill_(float("inf"))

    assert before == 0.0
    assert math.isnan(rewind.strays().item())
    assert rewind.unjudged == {"mask"}


class OwnNoise(toy.Toy):
    """A workload that draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = {"noise": torch.Generator().manual_seed(5)}


def test_generators_of_the_workload_are_rewound() -> None:
    """A generator that the workload registers gives the same numbers again."""
    workload = OwnNoise()
    rewind = Rewind(workload.model, toy.CPU, workload)
    mark = rewind.mark()
    first = torch.rand(3, generator=workload.generators["noise"])

    rewind.restore(mark)

    assert torch.equal(torch.rand(3, generator=workload.generators["noise"]), first)


def test_a_model_without_buffers_has_its_figure_where_its_weights_are() -> None:
    """It is put beside losses and norm in one tensor, which cannot be made of two devices."""
    model = nn.Linear(2, 2, device="meta")

    assert FlatBuffers(model).strays().device.type == "meta"
