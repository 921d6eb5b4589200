"""Calls are gathered to windows: held, then run together, and a call that raises leaves nothing behind."""

from __future__ import annotations

import gc
import queue
import weakref
from typing import Any

import pytest
import torch
from torch import nn, optim

from ampd import PerformanceConfig
from ampd.engine.boundary import Boundary
from ampd.errors import WorkloadError
from ampd.optimizer.pairs import Pairs
from ampd.optimizer.reports import log
from ampd.optimizer.settings import job_of
from ampd.optimizer.training import TrainingOptimizer
from tests.face import loops


def linear() -> nn.Module:
    """A model whose gradient over a batch is the mean of those over its parts."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))


def test_held_calls_compute_nothing() -> None:
    """Until the window is complete there is no loss, no output and no gradient; then there is one of each."""
    subject, trained = loops.face(gradient_accumulation_steps=3), linear()
    before = loops.state_of(trained, loops.ADAMW(trained))
    optimizer = loops.ADAMW(trained)

    first, second = loops.train(subject, trained, optimizer, loops.batches(2))

    assert first == second
    assert first["held"] and first["loss"] is None and first["output"] is None and not first["applied"]
    assert loops.state_of(trained, optimizer) == before
    (third,) = loops.train(subject, trained, optimizer, loops.batches(1))
    assert third["applied"] and not third["held"]


def test_the_status_says_how_far_the_window_is() -> None:
    """Held calls, of how many, and windows so far."""
    subject, trained = loops.face(gradient_accumulation_steps=3), linear()
    assert subject.training_optimizer.get_gradient_accumulation_status()["held"] == 0

    loops.train(subject, trained, loops.ADAMW(trained), loops.batches(2))
    assert subject.training_optimizer.get_gradient_accumulation_status() == {
        "gradient_accumulation_steps": 3, "held": 2, "windows": 0,
    }  # fmt: skip


def test_accumulation_is_a_large_batch() -> None:
    """Four calls of 8 samples move the weights as one of 32 does, and the loss is that of all of them."""
    small, large = linear(), linear()
    data = loops.batches(4)
    whole = (torch.cat([x for x, _y in data]), torch.cat([y for _x, y in data]))
    sgd = [optim.SGD(m.parameters(), lr=0.1) for m in (small, large)]

    results = loops.train(loops.face(gradient_accumulation_steps=4), small, sgd[0], data)
    (expected,) = loops.train(loops.face(), large, sgd[1], [whole])

    assert loops.loss_of(results[-1]) == pytest.approx(loops.loss_of(expected), rel=1e-6)
    for a, b in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_window_of_several_calls_falls_back_whole() -> None:
    """One call that overflows has all of its window replayed in float32, held data included."""
    subject, trained = loops.face(loops.float16(), gradient_accumulation_steps=2), loops.model()
    good, bad = loops.batches(2)

    _held, result = loops.train(subject, trained, loops.ADAMW(trained), [loops.overflowing(bad), good])

    assert (result["applied"], result["precision"], result["cause"]) == (True, "float32", "forward")
    assert subject.get_amp_stats()["total_steps"] == 1


def failing_after(calls: int) -> Any:
    """A criterion that raises once it was called so often, and is good again afterwards."""
    left = [calls]

    def criterion(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        if left[0] == -1:
            raise KeyError("a bug of the program")
        return loops.CRITERION(output, target)

    return criterion


def test_a_call_that_raises_leaves_no_half_window() -> None:
    """The error comes through; weights, BatchNorm and gradients are as before, and the next call begins a window."""
    subject, trained = loops.face(gradient_accumulation_steps=2), loops.model()
    optimizer, criterion = loops.ADAMW(trained), failing_after(1)
    step = subject.training_optimizer.training_step
    before = loops.state_of(trained, optimizer)
    (first, second) = loops.batches(2)

    step(trained, *first, criterion, optimizer)
    with pytest.raises(KeyError, match="a bug of the program"):
        step(trained, *second, criterion, optimizer)

    assert loops.state_of(trained, optimizer) == before
    assert all(p.grad is None for p in trained.parameters())
    assert step(trained, *first, criterion, optimizer)["held"]
    assert step(trained, *second, criterion, optimizer)["applied"]


def test_data_that_was_overwritten_while_held_is_refused() -> None:
    """A loop that fills the same tensor for every batch would train on the last one alone."""
    subject, trained = loops.face(gradient_accumulation_steps=2), linear()
    optimizer = loops.ADAMW(trained)
    ((x, y),) = loops.batches(1)
    loops.train(subject, trained, optimizer, [(x, y)])

    x.zero_()
    with pytest.raises(WorkloadError, match="was written into after it was given to training_step"):
        loops.train(subject, trained, optimizer, [(x, y)])


def test_pairs_hold_their_own_calls() -> None:
    """Two models in turn (a GAN) each complete their own window, with a loss scale of their own."""
    subject = loops.face(loops.float16(), gradient_accumulation_steps=2)
    pairs = [(m, loops.ADAMW(m)) for m in (loops.model(1), loops.model(2))]
    bad, good = loops.overflowing(loops.batches(1)[0]), loops.batches(1)[0]

    results = [
        loops.train(subject, model, optimizer, [batch])[0]
        for _turn in range(4)
        for (model, optimizer), batch in zip(pairs, (bad, good), strict=True)
    ]

    assert [r["held"] for r in results] == [True, True, False, False] * 2
    assert [r["scale"] for r in results if not r["held"]] == [128.0, 128.0, 64.0, 128.0]
    assert subject.get_amp_stats()["total_steps"] == 4


def test_pairs_do_not_meet_in_the_figures() -> None:
    """One model's scale is compared with its own last one, and what it saves with its own float32 windows."""
    pairs = Pairs(job_of(PerformanceConfig(amp_config=loops.float16())), log)
    step = TrainingOptimizer(pairs, Boundary(pairs, queue.SimpleQueue(), log, pairs.config)).training_step
    models = [loops.model(1), loops.model(2)]
    optimizers = [loops.ADAMW(model) for model in models]
    bad, good = loops.overflowing(loops.batches(1)[0]), loops.batches(1)[0]
    for batches in ((bad, good), (good, good)):
        for model, optimizer, batch in zip(models, optimizers, batches, strict=True):
            step(model, *batch, loops.CRITERION, optimizer)

    counts = pairs.ledger.job
    assert (counts.scale_backoffs, counts.scale_growths) == (1, 0)
    assert set(pairs.ledger.kept) == {"float16"}, "the model that ran last never fell back"


def test_a_model_that_is_dropped_is_freed() -> None:
    """The face keeps no model alive: a notebook that makes another gets the memory back."""
    subject, trained = loops.face(), loops.model()
    optimizer = loops.ADAMW(trained)
    loops.train(subject, trained, optimizer, loops.batches(1))
    model, weights = weakref.ref(trained), weakref.ref(trained.get_submodule("0").weight)

    del trained, optimizer
    gc.collect()

    assert (model(), weights()) == (None, None)
