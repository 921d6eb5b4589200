"""When ranks begin to agree on a window, and what becomes of a rank that sees its gradients unlike the others; for `forks`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ampd.core.ledger import WindowRecord
from ampd.engine import agreement
from ampd.engine.assembly import equip
from ampd.engine.device import capability_of
from ampd.engine.distributed import Group
from ampd.engine.trainer import Trainer
from tests.distributed.ranks import WINDOWS, Regression, Scenario
from tests.engine import toy

CALM = Scenario(sections={"amp": {"dtype": "float32"}})
MISSEEN = 2


class Noting(Group):
    """A rank that notes when its passes begin; at window `MISSEEN` the last one may see a norm that nobody else sees."""

    def __init__(self, *, sees_wrong: bool = False) -> None:
        super().__init__(toy.orders())
        self.noted: list[str] = []
        self._sees_wrong = sees_wrong and self.rank == self.world - 1
        self._agreed = 0

    def backward(self, loss: Tensor) -> None:
        """Noted."""
        self.noted.append("pass")
        super().backward(loss)

    def agree(self, figures: Tensor, losses: int, *, is_struck: bool) -> Tensor:
        """Of figures that may be wrong."""
        if self._sees_wrong and self._agreed == MISSEEN:
            figures[losses] = float("nan")
        self._agreed += 1
        return super().agree(figures, losses, is_struck=is_struck)


class Straying(nn.Module):
    """The identity with a buffer, into which a forward on the last rank once writes what is not finite."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self._passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        is_astray = self._passes == MISSEEN * CALM.micro_batches and dist.get_rank() > 0
        self.seen += torch.inf if is_astray else 1.0
        self._passes += 1
        return x


class Buffered(Regression):
    """With such a buffer."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.model = nn.Sequential(self.model, Straying())


@contextmanager
def noting_collectives(notes: list[str]) -> Iterator[None]:
    """Note each all_reduce that is called for from Python; DDP's own are not."""
    called = dist.all_reduce

    def noted(*words: Any, **named: Any) -> Any:
        notes.append("max")
        return called(*words, **named)

    dist.all_reduce = noted
    yield
    dist.all_reduce = called


@contextmanager
def kernels(name: bytes) -> Iterator[None]:
    """As on a device whose kernels are told from others by `name`."""
    known = agreement.kernels_on
    agreement.kernels_on = lambda device: name
    yield
    agreement.kernels_on = known


def trainer_of(workload: Regression, group: Group) -> Trainer:
    """A trainer of calm windows."""
    config = toy.config(**CALM.sections, distributed={"processes": group.world}, batch={"size": CALM.samples})
    parts = equip(config, workload, toy.CPU, lambda _report: None, ranks=group)
    return Trainer(config, parts, capability_of(toy.CPU), WINDOWS)


def order(workload: Regression) -> list[str]:
    """What a calm window of three micro-batches begins, in order."""
    group = Noting()
    subject = trainer_of(workload, group)
    group.noted.clear()  # a pass of zeros, when the model was joined
    with noting_collectives(group.noted):
        subject.step(toy.window(0, workload))
    return group.noted


def trained(workload: Regression, *, sees_wrong: bool = False) -> dict[str, Any]:
    """The windows that were applied, and the error that ended it; the last rank may see one norm wrong."""
    subject = trainer_of(workload, Noting(sees_wrong=sees_wrong))
    records: list[WindowRecord] = []
    try:
        for number in range(WINDOWS):
            records += subject.step(toy.window(number, workload))
    except RuntimeError as error:
        return {"applied": [record.skipped is None for record in records], "error": str(error)}
    return {"applied": [record.skipped is None for record in records], "error": ""}


def play(_seed: int, directory: Path) -> None:
    """What one rank of two makes of it."""
    rank = dist.get_rank()
    told: dict[str, Any] = {"alike": order(Regression(CALM)), "buffered": order(Buffered(CALM))}
    told["misseen"] = trained(Regression(CALM), sees_wrong=True)
    told["strayed"] = trained(Buffered(CALM))
    with kernels(b"of rank %d" % rank):
        told["unlike"] = order(Regression(CALM))
        told["misseen, unlike"] = trained(Regression(CALM), sees_wrong=True)
    (directory / f"{rank}.json").write_text(json.dumps(told))
