"""A call of `training_step` as the engine sees it: a micro-batch, and a workload whose loss is model and criterion.

The engine may run a window more than once and may divide a micro-batch, so a call keeps what it was given: where its
tensors stand in `data` and `target`, the criterion, and the version of each tensor. A tensor that was written into
meanwhile would make the replay another window; that is noticed by its version, and raised.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from ampd.engine.window import MicroBatch
from ampd.errors import WorkloadError
from ampd.optimizer.nest import detached, joined, rebuilt, tensors_in

Criterion = Callable[[Any, Any], Tensor]


class Call(MicroBatch, frozen=True, kw_only=True):
    """What one call of `training_step` was given; `tensors` are those of (data, target), in order.

    `whole` is the number of samples of the call, of which `samples` are in this part. It can be divided only where
    all its tensors have that many in their first dimension.
    """

    inputs: tuple[Any, Any]
    criterion: Criterion
    whole: int
    originals: tuple[tuple[Tensor, int], ...]
    is_divisible: bool

    @classmethod
    def of(cls, data: Any, target: Any, criterion: Criterion) -> Call:
        """The call of these arguments; keeps references, copies nothing."""
        if not callable(criterion):
            raise WorkloadError(
                f"criterion is a {type(criterion).__name__}, expected a function of (output, target)"
            )
        tensors = tuple(tensors_in((data, target)))
        sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors}
        samples = max(1, next((tensor.shape[0] for tensor in tensors if tensor.ndim), 1))
        return cls(
            tensors={str(index): tensor for index, tensor in enumerate(tensors)}, samples=samples, whole=samples,
            inputs=(data, target), criterion=criterion, is_divisible=sizes == {samples},
            originals=tuple((tensor, _version(tensor)) for tensor in tensors),
        )  # fmt: skip

    def arguments(self) -> tuple[Any, Any]:
        """Data and target with this part's tensors, on whatever device those are; raises WorkloadError if changed."""
        if any(_version(tensor) != version for tensor, version in self.originals):
            raise WorkloadError(
                "a tensor of data or target was written into after it was given to training_step, and the window "
                "cannot be run from it any more; give a clone, or a model that does not change its input in place"
            )
        data, target = rebuilt(self.inputs, iter(self.tensors.values()))
        return data, target

    def parts(self, count: int) -> tuple[MicroBatch, ...]:
        """At most `count` parts; the call itself where it cannot be divided."""
        return MicroBatch.parts(self, count) if self.is_divisible else (self,)


class CallWorkload:
    """A user's model, trained by calls; keeps the output of the last call that was run."""

    windows_per_epoch = sys.maxsize  # the loop's epochs are not known here

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._outputs: list[tuple[int, Any]] = []

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """None: the loop brings them, call by call."""
        return iter(())

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The criterion's loss for a call, or a part of one."""
        assert isinstance(micro_batch, Call), "only calls are run here"
        data, target = micro_batch.arguments()
        output = _run(self.model, data)
        loss = micro_batch.criterion(output, target)
        _check(loss)
        self._keep(micro_batch, detached(output))
        return loss

    def take_output(self) -> Any:
        """The output of the last call that was run, in one piece; it is then forgotten."""
        output = joined([output for _samples, output in self._outputs])
        self._outputs = []
        return output

    def _keep(self, call: Call, output: Any) -> None:
        """Keep the parts of the last call, and nothing of what was run before it."""
        self._outputs.append((call.samples, output))
        while sum(samples for samples, _output in self._outputs[1:]) >= call.whole:
            del self._outputs[0]


def _run(model: nn.Module, data: Any) -> Any:
    """A tuple is positional arguments, a mapping keyword arguments, anything else the one argument."""
    match data:
        case Mapping():
            return model(**data)
        case tuple():
            return model(*data)
    return model(data)


def _check(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise WorkloadError(
            f'the criterion returned {given}, expected a scalar tensor, the mean loss; use reduction="mean"'
        )
    if not loss.requires_grad:
        raise WorkloadError(
            "the criterion's loss has no gradient: it was detached, nothing in the model is trainable, "
            "or training_step was called under torch.no_grad()"
        )


def _version(tensor: Tensor) -> int:
    """Counts writes in place; tensors made in inference mode have no count."""
    return 0 if tensor.is_inference() else tensor._version
