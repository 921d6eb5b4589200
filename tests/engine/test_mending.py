"""Errors that a window is mended from: out of memory, and constants that float16 cannot hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ampd.core import messages as m
from ampd.core.precision import Precision
from ampd.engine.assembly import equip
from ampd.engine.device import capability_of
from ampd.engine.memory import Shortages
from ampd.engine.mending import Mending, MustLeave
from ampd.engine.ranks import Alone
from ampd.engine.trainer import Trainer
from ampd.engine.window import Attempt
from tests.engine import toy

FLOAT16: dict[str, Any] = {"dtype": "float16", "init_scale": 128.0}


class Masked(nn.Module):
    """Fills with a constant that float16 cannot hold, as many attention masks do."""

    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(x > 1e9, -1e9)


class MaskedToy(toy.Toy):
    """The toy with a mask behind its first layer."""

    def __init__(self) -> None:
        super().__init__()
        first, *rest = self.model.children()
        self.model = nn.Sequential(first, Masked(), *rest)


class MaskedLoss(toy.Toy):
    """The toy whose loss function itself writes the constant."""

    def loss(self, micro_batch: Any) -> Tensor:
        predicted = self.model(micro_batch.tensors["x"])
        return nn.functional.mse_loss(predicted.masked_fill(predicted > 1e9, -1e9), micro_batch.tensors["y"])


def test_a_constant_widens_its_module_once() -> None:
    """The module is named with its line and runs in float32; no fallback is charged, and float16 goes on."""
    subject, reports = reporting(MaskedToy())

    records = toy.run(subject, range(4))

    (widened,) = [r for r in reports if isinstance(r, m.Widened)]
    assert widened.module == "1"
    assert widened.location.startswith(__file__)
    assert [r.precision for r in records] == ["float16"] * 4
    assert [r.replays for r in records] == [(("constant", "float16"),), (), (), ()]
    assert subject.ledger.job.fp32_fallbacks == {}


def test_what_was_learned_survives_a_restart() -> None:
    """A resumed run does not meet the constant again."""
    subject, _reports = reporting(MaskedToy())
    toy.run(subject, range(1))
    resumed, reports = reporting(MaskedToy())

    resumed.load_state_dict(subject.state_dict())
    toy.run(resumed, range(1, 3))

    assert reports == []


def test_a_constant_in_the_loss_function_leads_to_float32() -> None:
    """Where no module is to blame, windows run in float32 from then on, and the budget stays whole."""
    subject, reports = reporting(MaskedLoss())

    records = toy.run(subject, range(3))

    assert [r.module for r in reports if isinstance(r, m.Widened)] == ["loss()"]
    assert [r.precision for r in records] == ["float32"] * 3
    assert records[1].replays == ()


def test_out_of_memory_splits_and_remembers() -> None:
    """A window without memory is run in halves, equal to the whole up to rounding; later windows begin divided."""
    whole = toy.trainer(toy.Toy(dropout=0.0), amp={"dtype": "float32"})
    without_batchnorm(whole)
    expected = toy.run(whole, range(2))
    subject, reports = reporting(toy.Toy(dropout=0.0), dtype="float32")
    without_batchnorm(subject)
    subject.parts.injector.arm("oom", 2)

    records = toy.run(subject, range(2))

    assert [r.parts for r in reports if isinstance(r, m.Split)] == [2]
    assert subject.parts.shortages.count == 1
    assert [r.loss for r in records] == pytest.approx([r.loss for r in expected], rel=1e-5)
    for ours, theirs in zip(subject.parts.parameters, whole.parts.parameters, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_memory_that_never_suffices_is_an_error() -> None:
    """Where even one sample does not fit, the error is raised as it came."""
    subject, _reports = reporting(Hungry())

    with pytest.raises(torch.OutOfMemoryError):
        subject.step(toy.window(0))


def test_other_errors_pass() -> None:
    """An error that nothing mends reaches the loop unchanged."""
    subject, reports = reporting(Broken())

    with pytest.raises(RuntimeError, match="a bug of the model"):
        subject.step(toy.window(0))
    assert reports == []


class Hungry(toy.Toy):
    """Never has enough memory."""

    def loss(self, micro_batch: Any) -> Tensor:
        raise torch.OutOfMemoryError("nothing left")


class Broken(toy.Toy):
    """Raises what torch raises for shapes that do not fit."""

    def loss(self, micro_batch: Any) -> Tensor:
        raise RuntimeError("a bug of the model")


def reporting(workload: toy.Toy, **amp: Any) -> tuple[Trainer, list[m.Report]]:
    """A trainer, and what its stages emit."""
    reports: list[m.Report] = []
    config = toy.config(amp={**FLOAT16, **amp})
    parts = equip(config, workload, toy.CPU, reports.append)
    return Trainer(config, parts, capability_of(toy.CPU), 100), reports


def without_batchnorm(subject: Trainer) -> None:
    """Put the batch statistics out of play: halves have others, as documented."""
    subject.parts.model.get_submodule("1").eval()


def test_a_rank_of_several_leaves_when_memory_runs_out() -> None:
    """Its peers may have summed some of its gradients: a second backward pass would meet their next one."""
    shortages = Shortages()
    mending = Mending(toy.Toy().model, toy.CPU, lambda _report: None, OneOfTwo(), shortages)
    attempt = Attempt(window=toy.window(0), precision=Precision.FLOAT32)

    with pytest.raises(MustLeave, match="rank 1: full") as left:
        mending.mend(torch.OutOfMemoryError("full"), attempt)
    assert (left.value.parts, mending.split, shortages.count) == (2, 1, 1)


def test_a_rank_whose_last_sample_does_not_fit_fails() -> None:
    """Beginning again in smaller parts would not help it: four samples shared by two ranks are two each."""
    mending = Mending(toy.Toy().model, toy.CPU, lambda _report: None, OneOfTwo())
    attempt = Attempt(window=toy.window(0), precision=Precision.FLOAT32, split=2)

    with pytest.raises(torch.OutOfMemoryError, match="full"):
        mending.mend(torch.OutOfMemoryError("full"), attempt)


def test_memory_that_runs_out_in_the_backward_pass_splits_too() -> None:
    """A process that is alone has nobody who waits for its gradients."""
    subject, reports = reporting(toy.Toy(), dtype="float32")
    subject.parts.injector.arm("oom-backward", 1)

    (record,) = toy.run(subject, range(1))

    assert [r.parts for r in reports if isinstance(r, m.Split)] == [2]
    assert record.skipped is None


def test_a_split_that_is_ordered_never_joins_what_was_divided() -> None:
    """What a journal repeats may be less than what a checkpoint has learned since."""
    subject, _reports = reporting(toy.Toy())

    splits = []
    for parts in (2, 4, 2):
        subject.divide(parts)
        splits.append(subject.state_dict()["stages"]["fallback"]["split"])

    assert splits == [2, 4, 4]


class OneOfTwo(Alone):
    """Rank 1 of a group that nobody calls."""

    rank = 1
    world = 2
