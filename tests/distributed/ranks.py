"""One rank of a group: runs a toy through a list of scenarios and writes down what became of it.

Many scenarios in one group, because a process that loads torch takes seconds and a window milliseconds. The same
function runs a scenario alone, so that both can be compared.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from ampd.core.messages import Fault, Report
from ampd.engine import checkpoint, distributed
from ampd.engine.assembly import equip
from ampd.engine.device import capability_of
from ampd.engine.ranks import Alone, Ranks
from ampd.engine.trainer import Trainer
from ampd.engine.window import MicroBatch
from tests.engine import toy

WINDOWS = 12


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A run: faults by window and rank, and sections of the job file; `samples` are those of a micro-batch."""

    faults: Mapping[int, Mapping[int, Fault]] = field(default_factory=dict)
    samples: int = 4
    micro_batches: int = 3
    sections: Mapping[str, Any] = field(default_factory=dict)


class Regression:
    """The toy without dropout and BatchNorm, whose results depend on how many processes share a batch."""

    windows_per_epoch = 8

    def __init__(self, scenario: Scenario) -> None:
        torch.manual_seed(1)
        self.model: nn.Module = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        self._scenario = scenario

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """Windows that are a pure function of epoch and position."""
        for position in range(start, self.windows_per_epoch):
            generator = torch.Generator().manual_seed(1000 * epoch + position)
            yield tuple(self._micro_batch(generator) for _ in range(self._scenario.micro_batches))

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        """Mean squared error."""
        return nn.functional.mse_loss(self.model(micro_batch.tensors["x"]), micro_batch.tensors["y"])

    def _micro_batch(self, generator: torch.Generator) -> MicroBatch:
        x = torch.randn(self._scenario.samples, 8, generator=generator)
        return MicroBatch(tensors={"x": x, "y": x.sum(1, keepdim=True)}, samples=len(x))


def scenarios(seed: int, world: int) -> dict[str, Scenario]:
    """All of them for `world` ranks, by name; the random ones are drawn from `seed`, alike on every rank."""
    samples, last = 2 * world, world - 1
    full: dict[str, Any] = {"amp": {"dtype": "float32"}}
    half: dict[str, Any] = {"amp": {"dtype": "float16", "init_scale": 1024.0}}
    late = {"amp": {**half["amp"], "replay": "adaptive", "risky_windows": 0}}
    draw = random.Random(seed)
    kinds: tuple[Fault, ...] = ("overflow", "nan-grad", "nan-loss")
    chance = {w: {draw.randrange(world): draw.choice(kinds)} for w in range(WINDOWS) if draw.random() < 0.5}
    errors: tuple[Fault, ...] = ("oom", "constant", "overflow")
    struck = {w: {draw.randrange(world): draw.choice(errors)} for w in range(WINDOWS) if draw.random() < 0.5}
    each = {"amp": {**full["amp"], "enable_distributed_accumulation": False}}
    everywhere: dict[int, Fault] = dict.fromkeys(range(world), "oom")
    cases: dict[str, tuple[Mapping[int, Mapping[int, Fault]], Mapping[str, Any]]] = {
        "plain": ({}, full),
        "uneven": ({}, full),
        "every backward": ({}, each),
        "loss on the last rank": ({3: {last: "overflow"}}, half),
        "loss on rank 0": ({3: {0: "overflow"}}, half),
        "gradient on the last rank": ({4: {last: "nan-grad"}}, half),
        "both": ({4: {0: "nan-grad", last: "overflow"}}, half),
        "late": ({4: {last: "overflow"}, 5: {0: "overflow"}}, late),
        "random": (chance, half),
        "random, late": (chance, late),
        "memory on the last rank": ({3: {last: "oom"}}, full),
        "memory on rank 0": ({3: {0: "oom"}}, full),
        "memory everywhere": ({3: everywhere}, full),
        "memory, uneven": ({3: {last: "oom"}}, full),
        "memory, every backward": ({3: {last: "oom"}}, each),
        "memory, late": ({4: {last: "oom"}, 5: {0: "oom"}}, late),
        "memory at first": ({0: {last: "oom"}}, full),
        "constant on the last rank": ({3: {last: "constant"}}, half),
        "constant, late": ({4: {last: "constant"}}, late),
        "constants, late": ({4: {last: "constant"}, 5: {0: "constant"}}, late),
        "memory and constant": ({3: {0: "constant", last: "oom"}}, half),
        "random errors": (struck, half),
        "random errors, late": (struck, late),
    }
    return {
        name: Scenario(faults=faults, sections=sections, samples=samples + ("uneven" in name))
        for name, (faults, sections) in cases.items()
    }


def trainer_of(scenario: Scenario, ranks: Ranks, emit: Callable[[Report], None]) -> Trainer:
    """A trainer of a scenario."""
    batch = {"size": scenario.samples}
    config = toy.config(**scenario.sections, distributed={"processes": max(2, ranks.world)}, batch=batch)
    parts = equip(config, Regression(scenario), toy.CPU, emit, ranks=ranks)
    return Trainer(config, parts, capability_of(toy.CPU), WINDOWS)


def play(scenario: Scenario, ranks: Ranks | None = None) -> dict[str, Any]:
    """Run a scenario; alone, where a fault on any rank is a fault."""
    reports: list[Report] = []
    subject = trainer_of(scenario, ranks or Alone(), reports.append)
    records = []
    for number in range(WINDOWS):
        here = scenario.faults.get(number, {})
        fault = here.get(ranks.rank) if ranks is not None else worst(here)
        if fault is not None:
            subject.injector.arm(fault, 1)
        records += subject.step(toy.window(number, subject.parts.workload))
    records += subject.drain()
    return {
        "hash": fingerprint(toy.state_bytes(subject) if ranks is None else _state_of(subject)),
        "weights": [round_trip(p) for p in subject.parts.parameters],
        "records": [msgspec.to_builtins(record) for record in records],
        "ledger": msgspec.to_builtins(subject.ledger.job),
        "reports": [msgspec.to_builtins(report) for report in reports],
    }


def worst(faults: Mapping[int, Fault]) -> Fault | None:
    """What becomes of a window with all of these faults: one that float32 does not mend decides."""
    lasting = (fault for fault in faults.values() if fault != "overflow")
    return next(lasting, next(iter(faults.values()), None))


def fingerprint(state: Mapping[str, bytes]) -> str:
    """One hash over all tensors."""
    return hashlib.sha256(b"".join(state[name] for name in sorted(state))).hexdigest()


def round_trip(tensor: Tensor) -> list[float]:
    """The numbers of a tensor."""
    numbers: list[float] = tensor.detach().reshape(-1).tolist()
    return numbers


def _state_of(subject: Trainer) -> dict[str, bytes]:
    """As toy.state_bytes, on every rank: a checkpoint is rank 0's alone."""
    tensors = dict(subject.parts.model.state_dict())
    for index, entry in enumerate(subject.parts.optimizer.state.values()):
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entry.items()}
    return {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


def resume(scenario: Scenario, ranks: Ranks, root: Path) -> str:
    """The hash after all windows, of which the second half was trained by other trainers, from a checkpoint."""
    before = trainer_of(scenario, ranks, lambda _report: None)
    toy.run(before, range(WINDOWS // 2))
    state = before.state_dict()
    if ranks.rank == 0:
        checkpoint.save(root, WINDOWS // 2, 0, state)
    ranks.all(True)
    (path,) = checkpoint.listed(root)
    after = trainer_of(scenario, distributed.Group(toy.orders()), lambda _report: None)
    after.load_state_dict(checkpoint.load(path, checkpoint.verify(path)))
    toy.run(after, range(WINDOWS // 2, WINDOWS))
    return fingerprint(_state_of(after))


def play_all(seed: int, directory: Path) -> None:
    """Play all scenarios in this rank of a group, and write down what came of them."""
    ranks = distributed.Group(toy.orders())
    cases = scenarios(seed, ranks.world)
    played: dict[str, Any] = {name: play(scenario, ranks) for name, scenario in cases.items()}
    played["resumed"] = resume(cases["plain"], ranks, directory / f"checkpoints-of-{ranks.world}")
    (directory / f"{ranks.rank}-of-{ranks.world}.json").write_text(json.dumps(played))
