"""A loop under `training_step` is the loop that one would have written by hand, and goes on where that one breaks."""

from __future__ import annotations

import copy

import msgspec
import pytest
import torch
from torch import nn, optim

from ampd import AMPConfig
from ampd.errors import WorkloadError
from tests.face import loops

OPTIMIZERS: dict[str, loops.MakeOptimizer] = {
    "adamw": loops.ADAMW,
    "fused adamw": lambda model: optim.AdamW(model.parameters(), lr=0.01, fused=True),
    "sgd": lambda model: optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
    "fused sgd": lambda model: optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True),
    "adagrad": lambda model: optim.Adagrad(model.parameters(), lr=0.01),
}


@pytest.mark.parametrize("max_norm", [None, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_in_float32_it_is_the_loop_by_hand(name: str, max_norm: float | None) -> None:
    """The same losses, weights, buffers and optimizer state bit for bit, with dropout, BatchNorm and clipping."""
    ours, theirs = loops.model(), loops.model()
    optimizers = OPTIMIZERS[name](ours), OPTIMIZERS[name](theirs)
    torch.manual_seed(3)
    results = loops.train(loops.face(max_grad_norm=max_norm), ours, optimizers[0], loops.batches(6))
    torch.manual_seed(3)
    losses = loops.by_hand(theirs, optimizers[1], loops.batches(6), max_norm)

    assert [loops.loss_of(result) for result in results] == losses
    assert loops.state_of(ours, optimizers[0]) == loops.state_of(theirs, optimizers[1])


def test_a_scheduler_of_the_loop_is_respected() -> None:
    """The rates in the optimizer's groups are the loop's: nothing overwrites them."""
    ours, theirs = loops.model(), loops.model()
    optimizers = loops.ADAMW(ours), loops.ADAMW(theirs)
    schedules = [optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1) for optimizer in optimizers]
    subject = loops.face()
    for batch in loops.batches(6):
        seed = torch.get_rng_state()
        loops.train(subject, ours, optimizers[0], [batch])
        torch.set_rng_state(seed)
        loops.by_hand(theirs, optimizers[1], [batch])
        for schedule in schedules:
            schedule.step()

    assert optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5)
    assert loops.state_of(ours, optimizers[0]) == loops.state_of(theirs, optimizers[1])


def test_weight_decay_of_the_loop_is_respected() -> None:
    """Other settings of a group are not ours either."""
    subject = loops.model()
    optimizer = optim.AdamW(subject.parameters(), lr=0.01, weight_decay=0.25)

    loops.train(loops.face(), subject, optimizer, loops.batches(2))

    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25]


def test_an_overflow_falls_back_and_is_counted() -> None:
    """A batch that overflows float16 is applied in float32, with its cause, and is in the figures once."""
    subject, trained = loops.face(loops.float16()), loops.model()
    good, bad, last = loops.batches(3)

    results = loops.train(subject, trained, loops.ADAMW(trained), [good, loops.overflowing(bad), last])

    assert [result["precision"] for result in results] == ["float16", "float32", "float16"]
    assert [result["applied"] for result in results] == [True, True, True]
    assert results[1]["cause"] == "forward"
    assert subject.get_amp_stats()["fp32_fallbacks"] == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_window_that_fell_back_is_that_window_in_float32(name: str) -> None:
    """Bit for bit, buffers and dropout included: a batch is not lost, and leaves no trace of its first attempt."""
    data = [loops.overflowing(batch) for batch in loops.batches(3)]
    states = []
    for amp in (loops.float16(), AMPConfig(dtype="float32")):
        trained = loops.model()
        optimizer = OPTIMIZERS[name](trained)
        torch.manual_seed(5)
        loops.train(loops.face(amp), trained, optimizer, data)
        states.append(loops.state_of(trained, optimizer))

    assert states[0] == states[1]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_batch_that_is_not_finite_changes_nothing(dtype: str) -> None:
    """Weights, BatchNorm and optimizer are as before it, in every dtype, and the result says why."""
    subject, trained = loops.face(msgspec.structs.replace(loops.float16(), dtype=dtype)), loops.model()
    optimizer = loops.ADAMW(trained)
    good, bad = loops.batches(2)
    loops.train(subject, trained, optimizer, [good])
    before = loops.state_of(trained, optimizer)

    (result,) = loops.train(subject, trained, optimizer, [(bad[0] * float("inf"), bad[1])])

    assert (result["applied"], result["cause"]) == (False, "data")
    assert loops.state_of(trained, optimizer) == before


def test_a_loss_that_is_infinite_with_good_gradients_is_not_applied() -> None:
    """GradScaler looks at gradients alone and would step."""
    subject, trained = loops.face(), loops.model()
    optimizer = loops.ADAMW(trained)
    before = loops.state_of(trained, optimizer)
    ((x, y),) = loops.batches(1)

    def criterion(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return loops.CRITERION(output, target) + torch.tensor(float("inf"))

    result = subject.training_optimizer.training_step(trained, x, y, criterion, optimizer)

    assert (result["applied"], result["cause"]) == (False, "model")
    assert loops.state_of(trained, optimizer) == before


def test_on_bad_window_abort_raises() -> None:
    """A program that would rather end is ended by an error that says which window."""
    subject, trained = loops.face(AMPConfig(dtype="float32", on_bad_window="abort")), loops.model()
    optimizer = loops.ADAMW(trained)
    ((x, y),) = loops.batches(1)

    with pytest.raises(WorkloadError, match=r"window 0 is not finite even at float32 \(cause: data\)"):
        loops.train(subject, trained, optimizer, [(x * float("nan"), y)])

    (result,) = loops.train(subject, trained, optimizer, [(x, y)])
    assert result["applied"], "a program that catches it goes on"


def test_the_result_is_what_the_model_gave() -> None:
    """The output is detached and belongs to this batch; the loss needs no wait for a device."""
    subject, trained = loops.face(), loops.model().eval()
    ((x, y),) = loops.batches(1)
    expected = copy.deepcopy(trained)(x)

    (result,) = loops.train(subject, trained, loops.ADAMW(trained), [(x, y)])

    assert torch.equal(result["output"], expected)
    assert not result["output"].requires_grad
    assert loops.loss_of(result) == loops.CRITERION(expected, y).item()
    assert result["loss"] is not None and result["loss"].device.type == "cpu"


def test_modes_of_modules_are_left_alone() -> None:
    """A loop that keeps a layer in eval mode (a frozen BatchNorm) finds it there after a step."""
    trained = loops.model()
    norm = trained.get_submodule("1").eval()

    loops.train(loops.face(), trained, loops.ADAMW(trained), loops.batches(2))

    assert not norm.training
    assert trained.training


def test_gradients_are_kept_where_that_is_asked_for() -> None:
    """`clear_gradients_after_step = False` leaves them for a loop that looks at them."""
    for clears in (True, False):
        trained = loops.model()
        amp = AMPConfig(dtype="float32", clear_gradients_after_step=clears)
        loops.train(loops.face(amp), trained, loops.ADAMW(trained), loops.batches(1))

        assert all((p.grad is None) is clears for p in trained.parameters())


def test_layers_may_be_unfrozen_between_steps() -> None:
    """Parameters that join the optimizer later are unscaled and clipped as the others are."""
    amp, trained = loops.float16(), loops.model()
    first, last = nn.Linear(8, 16), trained.get_submodule("4")
    trained.set_submodule("0", first)
    optimizer = optim.SGD(last.parameters(), lr=0.01)
    subject = loops.face(amp)
    before = copy.deepcopy(first.state_dict())
    loops.train(subject, trained, optimizer, loops.batches(1))
    assert torch.equal(first.weight, before["weight"])

    optimizer.add_param_group({"params": list(first.parameters())})
    loops.train(subject, trained, optimizer, loops.batches(1))

    moved = (first.weight - before["weight"]).abs().max().item()
    assert 0 < moved < 0.1, "a gradient that was not unscaled would have moved it 128 times as far"


def test_a_model_bug_that_float16_cannot_hold_is_mended() -> None:
    """`masked_fill(-1e9)` raises in float16; its module runs in float32 from then on, and no fallback is counted."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.layer(x)
            return y.masked_fill(y > 1e4, -1e9)

    subject, trained = loops.face(loops.float16()), Masked()
    results = loops.train(subject, trained, loops.ADAMW(trained), loops.batches(3))

    assert [result["applied"] for result in results] == [True] * 3
    assert results[0]["cause"] == "constant"
    assert subject.get_amp_stats()["fp32_fallbacks"] == 0
