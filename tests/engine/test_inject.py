"""Faults on demand: real numerics that go wrong where a real fault would, and nowhere else."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ampd.core import messages as m
from ampd.core.precision import Precision
from ampd.engine.inject import FaultyWorkload, Injector
from ampd.engine.ranks import Alone
from ampd.engine.stages.autocast import forward_context
from ampd.errors import ConfigError
from tests.engine import toy

FAULTS: list[m.Fault] = ["overflow", "nan-loss", "nan-grad"]


def disturbed(fault: m.Fault, precision: str) -> tuple[float, float]:
    """A loss of 2 w at w = 1 with a fault in it, and its gradient."""
    injector = Injector()
    injector.arm(fault, 1)
    injector.enter()
    weight = torch.ones((), requires_grad=True)

    with forward_context(Precision(precision), "cpu")():
        loss = injector.disturb(2 * weight)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own

    assert weight.grad is not None
    return loss.item(), weight.grad.item()


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_an_overflow_vanishes_in_wider_precision(precision: str) -> None:
    """Bit for bit: the loss and its gradient are as if nothing had been injected."""
    assert disturbed("overflow", precision) == (2.0, 2.0)


def test_an_overflow_is_one_in_float16() -> None:
    """A product of 60000 and 60000 that autocast runs in float16."""
    assert not math.isfinite(disturbed("overflow", "float16")[0])


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_a_nan_loss_is_bad_in_every_precision(precision: str) -> None:
    """No rung can mend it."""
    assert math.isnan(disturbed("nan-loss", precision)[0])


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_a_nan_gradient_hides_behind_a_good_loss(precision: str) -> None:
    """Only a look at the gradients finds it."""
    loss, gradient = disturbed("nan-grad", precision)

    assert loss == 2.0
    assert math.isnan(gradient)


def test_nothing_is_disturbed_unless_armed() -> None:
    """The very same tensor comes back."""
    loss = torch.ones(())
    injector = Injector()
    injector.enter()

    assert injector.disturb(loss) is loss


@pytest.mark.parametrize("windows", [1, 3])
def test_so_many_windows_go_wrong_as_were_ordered(windows: int) -> None:
    """Then the job is well again by itself."""
    injector, active = Injector(), []
    injector.arm("nan-loss", windows)

    for _ in range(5):
        injector.enter()
        active.append(injector.active)

    assert active == ["nan-loss"] * windows + [None] * (5 - windows)


def test_replays_meet_the_same_fault() -> None:
    """A fault belongs to a window, however often it is run."""
    injector = Injector()
    injector.arm("nan-loss", 1)
    injector.enter()

    assert all(math.isnan(injector.disturb(torch.ones(())).item()) for _ in range(3))


def test_a_new_order_takes_the_place_of_the_old() -> None:
    """What was armed last is what comes."""
    injector = Injector()
    injector.arm("nan-loss", 5)
    injector.enter()
    injector.arm("overflow", 1)

    injector.enter()
    first = injector.active
    injector.enter()

    assert (first, injector.active) == ("overflow", None)


def test_what_is_armed_survives_a_checkpoint() -> None:
    """A resumed job has the faults that were still to come."""
    injector, restored = Injector(), Injector()
    injector.arm("nan-grad", 2)
    injector.enter()

    restored.load_state_dict(injector.state_dict())
    restored.enter()
    first = restored.active
    restored.enter()

    assert (first, restored.active) == ("nan-grad", None)


def test_a_workload_is_disturbed_from_outside() -> None:
    """Its own loss is called, with its own micro-batch, and then made wrong."""
    injector, seen = Injector(), []

    class Constant(toy.Toy):
        def loss(self, micro_batch: object) -> Tensor:
            seen.append(micro_batch)
            return torch.ones(())

    micro_batch = toy.window(0).micro_batches[0]
    faulty = FaultyWorkload(Constant(), injector)
    injector.arm("nan-loss", 1)
    injector.enter()

    assert math.isnan(faulty.loss(micro_batch).item())
    assert seen == [micro_batch]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_that_does_not_allow_faults_has_none(fault: m.Fault) -> None:
    """Armed by whatever way, nothing goes wrong: its loss was never wrapped."""
    subject = toy.trainer(amp={"dtype": "float16", "init_scale": 128.0}, inject={"allowed": False})

    (record,) = toy.run(subject, range(1), {0: fault})

    assert (record.replays, record.skipped) == ((), None)


class OneOfTwo(Alone):
    """Rank 1 of a group that nobody calls."""

    rank = 1
    world = 2


@pytest.mark.parametrize(("rank", "active"), [(None, "oom"), (0, None), (1, "oom")])
def test_a_fault_may_be_one_ranks_alone(rank: int | None, active: m.Fault | None) -> None:
    """The others are told of it, since what is armed is saved once for all, and go on undisturbed."""
    injector = Injector(OneOfTwo())
    injector.arm("oom", 1, rank)
    restored = Injector(OneOfTwo())

    restored.load_state_dict(injector.state_dict())
    restored.enter()

    assert restored.active == active


def test_a_rank_that_is_not_there_is_refused() -> None:
    """With the ranks that there are; nothing is armed."""
    injector = Injector(OneOfTwo())

    with pytest.raises(ConfigError, match="no rank 2: this job has ranks 0 to 1"):
        injector.arm("oom", 1, rank=2)
    injector.enter()
    assert injector.active is None


@pytest.mark.parametrize("fault", ["oom", "oom-backward"])
def test_memory_is_short_for_an_undivided_micro_batch_only(fault: m.Fault) -> None:
    """Also where the first that a process sees is a part: it begins with what another had to learn."""
    subject = toy.trainer(amp={"dtype": "float32"})
    subject.divide(2)

    (record,) = toy.run(subject, range(1), {0: fault})

    assert record.skipped is None
    assert subject.state_dict()["stages"]["fallback"]["split"] == 2


def test_only_one_rank_of_several_can_diverge() -> None:
    """From what, otherwise? The hint says how to name it."""
    for injector, rank in ((Injector(), 0), (Injector(OneOfTwo()), None)):
        with pytest.raises(ConfigError, match="one rank of several unlike the rest") as refused:
            injector.arm("diverge", 1, rank)
        assert "--rank N" in refused.value.hint


def test_a_rank_that_diverges_has_another_weight() -> None:
    """One number of the first parameter, in the window that was named and in no other."""
    injector, weights = Injector(OneOfTwo()), [torch.zeros(2, 2), torch.zeros(2)]
    injector.arm("diverge", 1, rank=1)

    for _ in range(2):
        injector.enter()
        injector.corrupt(weights)

    assert [weight.sum().item() for weight in weights] == [1.0, 0.0]
