"""The workload: scikit-learn's handwritten digits, 1797 real images of 8 x 8 that the package carries.

The last fifth is held out as it stands: the file goes writer by writer, so these are hands that the model has not
seen, which a random fifth would not be. A window's samples are functions of the epoch and the position alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # scikit-learn ships no types
from torch import Tensor
from torch.nn import functional as F

from ampd.sdk import ConfigError, MicroBatch, WorkloadContext
from ampd_digits.model import DigitNet
from ampd_digits.spec import Options

VALIDATION_SHARE = 5  # one in so many
INK_LEVELS = 16.0  # pixels are counts from 0 to 16


class Digits:
    """A `Workload` that is also `Evaluating`."""

    def __init__(self, context: WorkloadContext, model: DigitNet) -> None:
        image, label = _images()
        trained = len(label) - len(label) // VALIDATION_SHARE
        self.model = model
        self._device = context.device
        self._batch_size, self._accumulate = context.batch_size, context.accumulate
        self._train, self._validation = (image[:trained], label[:trained]), (image[trained:], label[trained:])
        self._order = context.order(trained)
        self.windows_per_epoch = trained // (self._batch_size * self._accumulate)

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The windows of `epoch` from position `start` on; samples that fill no window are left out."""
        for window in range(start, self.windows_per_epoch):
            first = window * self._accumulate
            yield tuple(self._micro_batch(epoch, first + offset) for offset in range(self._accumulate))

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """Mean cross-entropy in nats over the samples."""
        logits = self.model(micro_batch.tensors["image"])
        return F.cross_entropy(logits.float(), micro_batch.tensors["label"])

    def evaluate(self) -> Mapping[str, float]:
        """{"loss": nats, "accuracy": 0..1} over all held-out images; one host read."""
        image, label = (tensor.to(self._device) for tensor in self._validation)
        logits = self.model(image).float()
        accuracy = (logits.argmax(dim=1) == label).float().mean()
        loss, share = torch.stack([F.cross_entropy(logits, label), accuracy]).tolist()
        return {"loss": loss, "accuracy": share}

    def _micro_batch(self, epoch: int, number: int) -> MicroBatch:
        chosen = torch.tensor(self._order.batch(epoch, number * self._batch_size, self._batch_size))
        image, label = self._train
        return MicroBatch(tensors={"image": image[chosen], "label": label[chosen]}, samples=len(chosen))


def build(options: Options, context: WorkloadContext) -> Digits:
    """The workload; its weights come from the job's seed and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(context.config.job.seed)
        model = DigitNet(options)
    workload = Digits(context, model)
    if workload.windows_per_epoch < 1:
        raise _too_large_a_window(context)
    return workload


def _images() -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) with ink from 0 to 1, and their digits (N,)."""
    digits = load_digits()
    image = torch.tensor(digits.images, dtype=torch.float32)[:, None] / INK_LEVELS
    return image, torch.tensor(digits.target, dtype=torch.int64)


def _too_large_a_window(context: WorkloadContext) -> ConfigError:
    return ConfigError(
        f"batch.size = {context.batch_size}, batch.accumulate = {context.accumulate}: a window must fit into the "
        "1438 training images",
        field="batch.size",
        hint="make the batch smaller",
    )
