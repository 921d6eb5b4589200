"""The workload: chunks of text in the job's order, and how well unseen chunks are predicted.

A sample is a chunk of context + 1 bytes from a grid over the training text; the grid is shifted anew in every epoch,
so that a byte is met at other distances from the start of its chunk. The shift and the order are functions of the
epoch and the position alone, which makes resuming in mid-epoch a matter of asking for the next position. The
whole text is one uint8 tensor: nothing is read while training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ampd.sdk import ConfigError, MicroBatch, WorkloadContext
from ampd_bytegpt.model import ByteTransformer
from ampd_bytegpt.spec import Options
from ampd_bytegpt.text import load

GOLDEN = 0.6180339887498949  # its multiples modulo 1 never cluster: even shifts in any number of epochs
EVALUATION_CHUNKS = 256  # nearly all of the default validation text; bounds the cost on longer ones
EVALUATION_BATCH = 32


class ByteGPT:
    """A `Workload` that is also `Evaluating`."""

    def __init__(self, options: Options, context: WorkloadContext, model: ByteTransformer) -> None:
        text = load(options)
        self.model = model
        self._chunk = options.context
        self._device = context.device
        self._batch_size, self._accumulate = context.batch_size, context.accumulate
        self._train, self._validation = _tensor(text.train), _tensor(text.validation)
        # One chunk less than fits, so that the shifted grid ends inside the text.
        self._order = context.order((len(self._train) - 1) // self._chunk - 1)
        self.windows_per_epoch = self._order.size // (self._batch_size * self._accumulate)

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The windows of `epoch` from position `start` on; samples that fill no window are left out."""
        for window in range(start, self.windows_per_epoch):
            first = window * self._accumulate
            yield tuple(self._micro_batch(epoch, first + offset) for offset in range(self._accumulate))

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """Mean nats per byte over every position of every sample."""
        text_BT = micro_batch.tensors["text"].long()
        logits_BTV = self.model(text_BT[:, :-1])
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), text_BT[:, 1:].flatten())

    def evaluate(self) -> Mapping[str, float]:
        """{"loss": nats per byte} over validation chunks that are the same in every call; one host read."""
        fitting = (len(self._validation) - 1) // self._chunk
        chosen = torch.linspace(0, fitting - 1, min(fitting, EVALUATION_CHUNKS)).long()
        batches = [
            _chunks(self._validation, batch * self._chunk, self._chunk)
            for batch in torch.split(chosen, EVALUATION_BATCH)
        ]
        sums = [self.loss(batch.to(self._device)) * batch.samples for batch in batches]
        return {"loss": torch.stack(sums).sum().item() / len(chosen)}

    def _micro_batch(self, epoch: int, number: int) -> MicroBatch:
        samples = self._order.batch(epoch, number * self._batch_size, self._batch_size)
        shift = int(epoch * GOLDEN % 1 * self._chunk)
        return _chunks(self._train, torch.tensor(samples) * self._chunk + shift, self._chunk)


def build(options: Options, context: WorkloadContext) -> ByteGPT:
    """The workload; its weights come from the job's seed and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(context.config.job.seed)
        model = ByteTransformer(options)
    workload = ByteGPT(options, context, model)
    if workload.windows_per_epoch < 1:
        raise _too_large_a_window(options, context)
    return workload


def _too_large_a_window(options: Options, context: WorkloadContext) -> ConfigError:
    return ConfigError(
        f"batch.size = {context.batch_size}, batch.accumulate = {context.accumulate}: the text has too few chunks of "
        f"context = {options.context} bytes for a single window",
        field="batch.size",
        hint="make the batch or workload.options.context smaller, or name more text",
    )


def _tensor(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _chunks(text: Tensor, starts: Tensor, length: int) -> MicroBatch:
    """Samples of length + 1 bytes: each position's byte and, one further, what comes next."""
    tensor = text[starts[:, None] + torch.arange(length + 1)]
    return MicroBatch(tensors={"text": tensor}, samples=len(starts), tokens=len(starts) * length)
