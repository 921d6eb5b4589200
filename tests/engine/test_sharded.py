"""What of FSDP2 needs no group: which modules are gathered together, who has which rows, what is refused."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ampd.core import messages as m
from ampd.core.group import DistributedSection
from ampd.core.precision import Precision
from ampd.engine.job import under_strategy
from ampd.engine.mending import Mending
from ampd.engine.ranks import Alone
from ampd.engine.rows import rows, size_of_rows
from ampd.engine.sharded import blocks_of, require_rows
from ampd.engine.window import Attempt
from ampd.errors import WorkloadError
from tests.engine import toy


class Layer(nn.Module):
    """A module of modules, as a transformer's layer is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)


def workload_of(model: nn.Module) -> toy.Toy:
    """A workload with this model."""
    workload = toy.Toy()
    workload.model = model
    return workload


def test_layers_in_a_list_are_gathered_one_at_a_time() -> None:
    """Those that stand with their like; what is beside them belongs to the root."""
    layers = nn.ModuleList([Layer(), Layer(), Layer()])
    model = nn.ModuleDict({"embed": nn.Embedding(4, 2), "layers": layers, "head": nn.Linear(2, 4)})

    assert list(blocks_of(workload_of(model))) == list(layers)


def test_only_the_outermost_layers_are_gathered() -> None:
    """A layer takes the layers within it along."""
    stages = [nn.Sequential(nn.Sequential(Layer(), Layer())), nn.Sequential(nn.Sequential(Layer(), Layer()))]

    assert list(blocks_of(workload_of(nn.Sequential(*stages)))) == stages


def test_single_operations_are_not_worth_a_collective() -> None:
    """Linear layers in a row, a list in a list and a module without its like stay with the root."""
    model = nn.Sequential(
        nn.Linear(2, 2), nn.Linear(2, 2), Layer(), nn.ModuleList([nn.ModuleList(), nn.ModuleList()])
    )

    assert list(blocks_of(workload_of(model))) == []


class Choosing(toy.Toy):
    """Says itself what is gathered together."""

    def shards(self) -> Iterable[nn.Module]:
        """The last layer alone."""
        return [self.model.get_submodule("4")]


def test_a_workload_may_choose_what_is_gathered() -> None:
    """`shards()` is asked before anything is looked for."""
    workload = Choosing()

    assert blocks_of(workload) == [workload.model.get_submodule("4")]


@given(count=st.integers(1, 40), world=st.integers(1, 9))
def test_rows_are_those_of_torch_chunk(count: int, world: int) -> None:
    """Every rank has the rows that FSDP2 gives it, which may be none, and each row is somebody's."""
    chunks = [chunk.tolist() for chunk in torch.arange(count).chunk(world)]
    ours = [list(rows(count, rank, world)) for rank in range(world)]

    assert ours == chunks + [[]] * (world - len(chunks))
    assert sum(size_of_rows((count, 3), rank, world) for rank in range(world)) == 3 * count


def test_a_weight_without_rows_is_refused_by_name() -> None:
    """A scalar cannot be divided; the message says which weight, and what to do."""
    model = nn.Linear(2, 2)
    model.register_parameter("temperature", nn.Parameter(torch.tensor(1.0)))

    with pytest.raises(WorkloadError, match=r'temperature of shape \[\].*strategy = "ddp"'):
        require_rows(model)


def test_a_constant_is_not_mended_where_weights_are_shared() -> None:
    """The pass that it cut short left gathered weights behind; the error names the place and the ways out."""
    mending = Mending(toy.Toy().model, toy.CPU, lambda _report: None, OneOfSharers())
    attempt = Attempt(window=toy.window(0), precision=Precision.FLOAT16)
    error = RuntimeError("value cannot be converted to type at::Half without overflow")

    with pytest.raises(WorkloadError, match=r"a constant in loss\(\).*fsdp2.*bfloat16"):
        mending.mend(error, attempt)


class OneOfSharers(Alone):
    """Rank 0 of a group that nobody calls, and that shares the weights."""

    world = 2
    is_sharded = True


def test_one_process_has_nothing_to_share() -> None:
    """Where "auto" gives one process the model stays whole, and the operator is told."""
    reports: list[m.Report] = []
    alone = Alone()

    section = DistributedSection(processes="auto", strategy="fsdp2")
    assert under_strategy(alone, section, toy.orders(), reports.append) is alone
    (warned,) = reports
    assert isinstance(warned, m.Warned)
    assert "nothing to share" in warned.message
