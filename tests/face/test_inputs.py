"""What may be given to `training_step`, and what is refused with a reason."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from ampd.errors import WorkloadError
from ampd.optimizer.call import Call, CallWorkload
from ampd.optimizer.nest import detached, joined, tensors_in
from tests.face import loops

Both = namedtuple("Both", ["first", "second"])  # what old code returns


class Two(nn.Module):
    """A model of two inputs and two outputs, one of them by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {"sum": self.layer(x) + self.layer(y), "parts": (self.layer(x), "a word")}


def sum_loss(output: dict[str, Any], target: Tensor) -> Tensor:
    """The loss of one of the outputs."""
    return loops.CRITERION(output["sum"], target)


@pytest.mark.parametrize(
    "data", [(torch.ones(4, 8), torch.zeros(4, 8)), {"x": torch.ones(4, 8), "y": torch.zeros(4, 8)}], ids=["args", "kwargs"]
)  # fmt: skip
def test_models_of_several_inputs(data: Any) -> None:
    """A tuple is positional arguments, a mapping keyword arguments; the output keeps its shape, detached."""
    trained = Two()
    result = loops.face().training_optimizer.training_step(
        trained, data, torch.ones(4, 1), sum_loss, loops.ADAMW(trained)
    )

    assert result["applied"]
    assert result["output"]["parts"][1] == "a word"
    assert [t.requires_grad for t in tensors_in(result["output"])] == [False, False]


def test_containers_keep_their_types() -> None:
    """Outputs are read by attribute as often as by key, so a named tuple stays one, and an ordered mapping too."""
    value: Any = OrderedDict(a=Both(torch.ones(2, requires_grad=True), [torch.zeros(1)]), b=3)

    copied = detached(value)

    assert type(copied) is OrderedDict and type(copied["a"]) is Both and type(copied["a"].second) is list
    assert copied["b"] == 3 and value["a"].first.requires_grad and not copied["a"].first.requires_grad


def test_parts_of_an_output_are_joined() -> None:
    """Tensors along the samples, scalars as their mean."""
    whole = joined([{"x": torch.ones(2, 3), "loss": torch.tensor(1.0)}, {"x": torch.zeros(1, 3), "loss": torch.tensor(3.0)}])  # fmt: skip

    assert whole["x"].shape == (3, 3)
    assert whole["loss"].item() == 2.0


class Hungry(nn.Module):
    """A model that has memory for two samples at once, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, x: Tensor, *_others: Tensor) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError(f"no memory for {len(x)} samples")
        y: Tensor = self.layer(x)
        return y


def test_a_batch_too_large_for_memory_is_divided() -> None:
    """The step is applied in parts, the loss and the output are those of the whole batch."""
    trained = Hungry()
    ((x, y),) = loops.batches(1, size=7)
    expected = trained.layer(x).detach()

    (result,) = loops.train(loops.face(), trained, optim.SGD(trained.parameters(), lr=0.1), [(x, y)])

    assert result["applied"]
    torch.testing.assert_close(result["output"], expected)
    assert loops.loss_of(result) == pytest.approx(loops.CRITERION(expected, y).item())


def test_a_batch_that_cannot_be_divided_raises_what_torch_raised() -> None:
    """A tensor without the batch's first dimension (an adjacency matrix) would be torn apart."""
    trained = Hungry()
    data = (torch.ones(8, 8), torch.ones(3, 3))

    with pytest.raises(torch.OutOfMemoryError, match="no memory for 8 samples"):
        loops.face().training_optimizer.training_step(
            trained, data, torch.ones(8, 1), loops.CRITERION, loops.ADAMW(trained)
        )


def test_only_the_last_call_is_kept() -> None:
    """The outputs of a window's other calls and of attempts that failed are dropped as it goes on."""
    trained = nn.Linear(8, 1)
    workload = CallWorkload(trained)
    for x, y in loops.batches(5):
        workload.loss(Call.of(x, y, loops.CRITERION))

    assert torch.equal(workload.take_output(), trained(loops.batches(5)[-1][0]))


def test_data_parallel_is_refused() -> None:
    """With the reason, with what to pass instead, and with the line that trains on several devices."""
    trained = loops.model()
    told = r'autocast.s dtype is per thread.*pass model\.module.*processes = "auto".*DistributedDataParallel'
    with pytest.raises(WorkloadError, match=told):
        loops.train(
            loops.face(), nn.DataParallel(trained), loops.ADAMW(trained), loops.batches(1)
        )  # fmt: skip


def halves() -> Any:
    """A model in float16, with its optimizer."""
    trained = loops.model().half()
    return trained, loops.ADAMW(trained)


UNFIT: dict[str, tuple[Callable[[], tuple[Any, Any]], str]] = {
    "no model": (lambda: (lambda x: x, loops.ADAMW(loops.model())), "model is a function, expected a torch.nn.Module"),
    "no optimizer": (lambda: (loops.model(), 0.1), "optimizer is a float, expected a torch.optim.Optimizer"),
    "another model's": (lambda: (loops.model(), loops.ADAMW(loops.model())), "holds no parameter of the model"),
    "lbfgs": (lambda: (m := loops.model(), optim.LBFGS(m.parameters())), "LBFGS, whose step"),
    "half": (halves, "parameters are float16"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_trained_is_refused(name: str) -> None:
    """Before anything is computed, with what was given and what was expected."""
    make, reason = UNFIT[name]
    trained, optimizer = make()

    with pytest.raises(WorkloadError, match=reason):
        loops.train(loops.face(), trained, optimizer, loops.batches(1))


CRITERIA: dict[str, tuple[Any, str]] = {
    "not callable": (3.0, "criterion is a float, expected a function"),
    "a vector": (nn.MSELoss(reduction="none"), r'a tensor of shape \(8, 1\), expected a scalar.*reduction="mean"'),
    "a number": (lambda output, target: 1.0, "the criterion returned float, expected a scalar tensor"),
    "detached": (lambda output, target: output.detach().mean(), "has no gradient: it was detached"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_that_gives_no_loss_is_refused(name: str) -> None:
    """With what it gave, and what to give instead."""
    criterion, reason = CRITERIA[name]
    trained = loops.model()
    ((x, y),) = loops.batches(1)

    with pytest.raises(WorkloadError, match=reason):
        loops.face().training_optimizer.training_step(trained, x, y, criterion, loops.ADAMW(trained))


def test_a_replay_of_data_that_the_model_changed_is_refused() -> None:
    """A model that writes into its input would be replayed on other data than it was first run on."""

    class Scaling(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # torch's name for it
            return super().forward(input.mul_(2))

    trained = Scaling(8, 1)
    with pytest.raises(WorkloadError, match="a model that does not change its input in place"):
        loops.train(
            loops.face(loops.float16()), trained, loops.ADAMW(trained), [loops.overflowing(loops.batches(1)[0])]
        )  # fmt: skip
