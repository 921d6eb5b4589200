"""What ranks that share their weights make of a list of scenarios, for `forks`.

As `ranks`, on a model with blocks that are gathered one at a time, with buffers, and with rows that do not divide evenly.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import msgspec
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from ampd import failpoints
from ampd.core.ledger import WindowRecord
from ampd.core.messages import Fault
from ampd.engine import checkpoint
from ampd.engine.assembly import equip
from ampd.engine.device import capability_of
from ampd.engine.distributed import Group
from ampd.engine.job import files_of
from ampd.engine.mending import MustLeave
from ampd.engine.ranks import Alone, Ranks
from ampd.engine.retention import Keep
from ampd.engine.sharded import Shards
from ampd.engine.trainer import Trainer
from ampd.engine.window import MicroBatch
from ampd.engine.writer import CHECKPOINTS, SaveTask
from ampd.errors import WorkloadError
from tests.distributed import ranks
from tests.distributed.ranks import WINDOWS, Scenario, round_trip, worst
from tests.engine import toy

CALM = Scenario(sections={"amp": {"dtype": "float32"}})


class Block(nn.Module):
    """A residual layer with a buffer that every pass of training changes."""

    passes: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """x and what is learned of it."""
        if self.training:
            self.passes += 1
        return x + torch.tanh(self.inner(x))


class Layers(nn.Module):
    """A model of two blocks; 7 and 3 rows can be divided evenly neither by 2 nor by 4."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(8, 7)
        self.blocks = nn.ModuleList(Block(7) for _ in range(2))
        self.narrow = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Three figures of each sample."""
        x = self.widen(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.narrow(x)
        return out


class Learning(ranks.Regression):
    """Regression on `Layers`, without anything that depends on how many processes share a batch."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        torch.manual_seed(1)
        self.model = Layers()

    def evaluate(self) -> dict[str, float]:
        """The loss on the first window of epoch 99, with a weight used beside the model's forward."""
        model = self.model
        assert isinstance(model, Layers)
        micro_batch = next(self.windows(99, 0))[0]
        return {"loss": float(self.loss(micro_batch)), "bias": float(model.widen.bias.sum())}

    def _micro_batch(self, generator: torch.Generator) -> MicroBatch:
        x = torch.randn(self._scenario.samples, 8, generator=generator)
        x[:, 7] = (
            0.0  # so that the gradient of one column is zero, of which ranks have different numbers of rows
        )
        return MicroBatch(tensors={"x": x, "y": x[:, :3].cumsum(1)}, samples=len(x))


def scenarios(seed: int) -> dict[str, Scenario]:
    """Some of `ranks`; one in which every window overflows somewhere; and what is done with the rows of gradients."""
    known = ranks.scenarios(seed, 2)
    chosen = ("plain", "uneven", "every backward", "loss on the last rank", "both", "late", "random, late")
    always: dict[int, dict[int, Fault]] = {window: {window % 2: "overflow"} for window in range(WINDOWS)}
    half = known["loss on the last rank"].sections
    unscaled = {"amp": {"dtype": "float16", "scale_loss": False}}
    return {name: known[name] for name in chosen} | {
        "always": Scenario(faults=always, sections=half),
        "clipped": Scenario(sections={**CALM.sections, "clip": {"max_norm": 1.55}}),
        "sgd": Scenario(sections={**CALM.sections, "optim": {"name": "sgd"}}),
        "unscaled": Scenario(sections=unscaled),
    }


def trainer_of(scenario: Scenario, group: Ranks) -> Trainer:
    """A trainer of a scenario."""
    shared = {"processes": 2, "strategy": "fsdp2"}
    config = toy.config(**scenario.sections, distributed=shared, batch={"size": scenario.samples})
    parts = equip(config, Learning(scenario), toy.CPU, lambda _report: None, ranks=group)
    return Trainer(config, parts, capability_of(toy.CPU), WINDOWS)


def train(subject: Trainer, scenario: Scenario, group: Ranks | None, windows: range) -> list[WindowRecord]:
    """Some windows of a scenario; alone, a fault on any rank is a fault."""
    records = []
    for number in windows:
        here = scenario.faults.get(number, {})
        fault = worst(here) if group is None else here.get(group.rank)
        if fault is not None:
            subject.injector.arm(fault, 1)
        records += subject.step(toy.window(number, subject.parts.workload))
    return records + subject.drain()


def play(scenario: Scenario, group: Ranks | None = None) -> dict[str, Any]:
    """Run a scenario and evaluate; what this rank saw, and the whole weights."""
    subject = trainer_of(scenario, group or Alone())
    records = train(subject, scenario, group, range(WINDOWS))
    return {
        "evaluated": dict(subject.evaluate()),
        "weights": whole(subject),
        "kept": msgspec.to_builtins(subject.ledger.kept),
        "records": [msgspec.to_builtins(record) for record in records],
        "ledger": msgspec.to_builtins(subject.ledger.job),
    }


class Collectives(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts torch's collectives by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Passes everything on."""
        self.counts.update([func.__name__] if func.namespace == "c10d" else [])
        return func(*args, **(kwargs or {}))


def collectives(group: Ranks, parts: int = 1) -> dict[str, int]:
    """How often each kind of collective ran in a calm window of two micro-batches, each run in so many parts."""
    scenario = Scenario(micro_batches=2, sections={"amp": {"dtype": "float32"}})
    subject = trainer_of(scenario, group)
    subject.divide(parts)
    train(subject, scenario, group, range(1))
    with Collectives() as seen:
        train(subject, scenario, group, range(1, 2))
    return dict(seen.counts)


def whole(subject: Trainer) -> dict[str, list[float]]:
    """The weights and buffers, put together by torch from all ranks."""
    tensors = subject.parts.model.state_dict().items()
    return {name: round_trip(t.full_tensor() if isinstance(t, DTensor) else t) for name, t in tensors}


def save(subject: Trainer, directory: Path, window: int) -> None:
    """A checkpoint, by the files of a job."""
    ranks = subject.parts.ranks
    files = files_of(directory, lambda _report: None, ranks)
    files.start(0)
    state = subject.state_dict()
    files.save(SaveTask(window=window, seq=0, state=state, keep=Keep(last=2), stall_seconds=0.0))
    try:
        files.wait()
        assert files.trouble is None, files.trouble
    finally:
        files.close()


def load(subject: Trainer, directory: Path) -> None:
    """The newest checkpoint, of which a rank that shares the weights reads its part."""
    ranks = subject.parts.ranks
    path = checkpoint.listed(directory / CHECKPOINTS)[-1]
    part = (ranks.rank, ranks.world) if ranks.is_sharded else None
    subject.load_state_dict(checkpoint.load(path, checkpoint.verify(path), part))


def resumed(directory: Path) -> dict[str, list[float]]:
    """The weights after all windows, half of them trained before a checkpoint, the others after it by a new trainer."""
    before = trainer_of(CALM, Shards(toy.orders()))
    train(before, CALM, before.parts.ranks, range(WINDOWS // 2))
    save(before, directory, WINDOWS // 2)
    after = trainer_of(CALM, Shards(toy.orders()))
    load(after, directory)
    train(after, CALM, after.parts.ranks, range(WINDOWS // 2, WINDOWS))
    return whole(after)


def save_again(source: Path, target: Path) -> None:
    """Load what others have saved, and save it as this group does."""
    subject = trainer_of(CALM, Shards(toy.orders()))
    load(subject, source)
    save(subject, target, WINDOWS)


def divided(group: Ranks | None = None) -> dict[str, list[float]]:
    """The weights after windows whose micro-batches were run in parts; 5 samples do not make equal ones."""
    scenario = Scenario(samples=5, sections=CALM.sections)
    subject = trainer_of(scenario, group or Alone())
    subject.divide(4)
    train(subject, scenario, group, range(WINDOWS))
    return whole(subject)


def struck(fault: Fault) -> str:
    """What the loop is told of an error that strikes every rank in its forward."""
    subject = trainer_of(scenarios(0)["always"], Shards(toy.orders()))
    subject.injector.arm(fault, 1)
    try:
        subject.step(toy.window(0, subject.parts.workload))
    except (MustLeave, WorkloadError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def tell(seed: int, directory: Path) -> None:
    """What a rank of two makes of all this; one of four saves again what others have saved."""
    group = Shards(toy.orders())
    told: dict[str, Any] = {}
    if group.world == 2:
        chosen = scenarios(seed).items()
        told["played"] = {name: play(scenario, Shards(toy.orders())) for name, scenario in chosen}
        told["averaged"] = {
            name: play(dict(chosen)[name], Group(toy.orders())) for name in ("plain", "always")
        }
        told["collectives"] = collectives(Shards(toy.orders()))
        told["collectives, divided"] = collectives(Shards(toy.orders()), parts=2)
        told["divided"] = divided(Shards(toy.orders()))
        told["struck"] = {fault: struck(fault) for fault in get_args(Fault) if fault in ("oom", "constant")}
        told["resumed"] = resumed(directory / "by-two")
    else:
        told["played"] = {"always": play(scenarios(seed)["always"], Shards(toy.orders()))}
        for name in ("by-one", "by-two"):
            save_again(directory / name, directory / f"{name}-again")
    (directory / f"{group.rank}-of-{group.world}.json").write_text(json.dumps(told))


def die(_seed: int, directory: Path) -> None:
    """The last rank is killed when its rows are on the disk, and has told nobody; what the others see is written down."""
    group = Shards(toy.orders())
    subject = trainer_of(CALM, group)
    if group.rank == group.world - 1:
        failpoints.arm({failpoints.VARIABLE: "rows.written=kill"})
    try:
        save(subject, directory, 0)
    except (RuntimeError, AssertionError) as error:  # the channel broke, or the save is told to have failed
        (directory / f"seen-by-{group.rank}").write_text(str(error))
