"""What the contestants train: three models, each with its data made beforehand, so that no step waits for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ampd.engine.registry import load, options_of, workload_spec
from ampd.engine.window import MicroBatch
from ampd.engine.workload import Workload, WorkloadContext

BATCHES = 16  # few enough to stay in the cache of a small machine, many enough not to be one batch
SAMPLES = 64
LAYERS = 4


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model to train; `steps` and `rounds` by dtype: how many steps everybody has in a round, and how many rounds.

    Each has a third of a second or more in a round: the supervisor builds its page when a snapshot comes, and
    snapshots come five times a second, so in shorter rounds ampd would bear a page that many of them should share.
    """

    name: str
    build: Callable[[WorkloadContext], Workload]
    steps: Mapping[str, int]
    rounds: Mapping[str, int]


class Mlp:
    """Regression through four square layers."""

    windows_per_epoch = 2**40

    def __init__(self, width: int) -> None:
        torch.manual_seed(1)
        layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(width, width), nn.ReLU())]
        self.model: nn.Module = nn.Sequential(*layers[:-1])
        self._data = [
            MicroBatch(
                tensors={"x": torch.randn(SAMPLES, width), "y": torch.randn(SAMPLES, width)}, samples=SAMPLES
            )
            for _ in range(BATCHES)
        ]

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The same few batches, again and again."""
        return ((micro_batch,) for micro_batch in cycle(self._data))

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(self.model(micro_batch.tensors["x"]).float(), micro_batch.tensors["y"])


class Repeated:
    """A plugin's workload on its first few windows, again and again."""

    windows_per_epoch = 2**40

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._data = list(islice(workload.windows(0, 0), BATCHES))

    @property
    def model(self) -> nn.Module:
        """The plugin's model, or what a peer has wrapped it in."""
        return self._workload.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._workload.model = model

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """The windows that were made beforehand."""
        return cycle(self._data)

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """The plugin's loss."""
        return self._workload.loss(micro_batch)


def plugin(name: str, **options: object) -> Callable[[WorkloadContext], Workload]:
    """Builds a plugin's workload the way the worker does."""

    def build(context: WorkloadContext) -> Workload:
        spec = workload_spec(name)
        return Repeated(load(spec.build)(options_of(spec, options, "workload.options"), context))

    return build


TASKS = {
    task.name: task
    for task in (
        Task(
            name="mlp-256", build=lambda _context: Mlp(256),
            steps={"bfloat16": 160, "float16": 16}, rounds={"bfloat16": 50, "float16": 30},
        ),
        Task(
            name="mlp-1024", build=lambda _context: Mlp(1024),
            steps={"bfloat16": 20, "float16": 1}, rounds={"bfloat16": 40, "float16": 12},
        ),
        Task(
            name="bytegpt", build=plugin("bytegpt", context=64, layers=2, width=128, heads=2, ngram_rows=2048),
            steps={"bfloat16": 8, "float16": 1}, rounds={"bfloat16": 40, "float16": 15},
        ),
    )
}  # fmt: skip
