"""Models with the optimizers that train them, each with its own parts of the engine, governed as one.

Parts are built once for a (model, optimizer) pair and are weakly tied to it: the engine gets proxies, so that a
program which drops a model gets its memory back. A GAN's two pairs have a loss scale, learned overrides and a choice
of precision of their own; configuration, ledger and resets are common to all.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from torch import nn, optim

from ampd.core import change
from ampd.core.config import JobConfig
from ampd.core.flops import Flops
from ampd.core.histogram import Distributions
from ampd.core.kept import Kept
from ampd.core.ledger import Counts, Ledger
from ampd.core.messages import Report
from ampd.core.precision import Capability, Choice, Precision
from ampd.engine.assembly import outfit
from ampd.engine.device import cap_memory, capability_of
from ampd.engine.emulation import Emulation
from ampd.engine.inject import Injector
from ampd.engine.rates import OwnRates
from ampd.engine.snapshot import Telemetry
from ampd.engine.stopwatch import Stopwatch
from ampd.engine.trainer import Trainer
from ampd.optimizer.call import Call, CallWorkload
from ampd.optimizer.fitness import device_of
from ampd.optimizer.settings import refuse_foreign, refuse_unfit

UNKNOWN_TOTAL = 0
"""A loop does not say how many windows it will run."""


@dataclass(slots=True, kw_only=True)
class Pair:
    """One model with one optimizer; `held` are the calls of its window that is not complete yet.

    `kept`, `flops` and `last_scale` are the ledger's, set aside while another pair runs: they compare one window with the
    last, which must be of the same model.
    """

    trainer: Trainer
    workload: CallWorkload
    telemetry: Telemetry
    emulation: Emulation
    held: list[Call] = field(default_factory=list)
    is_probed: bool = False
    kept: dict[str, Kept] = field(default_factory=dict)
    flops: dict[str, Flops] = field(default_factory=dict)
    last_scale: float | None = None


class Pairs:
    """All pairs of a program; for the thread of its loop."""

    def __init__(self, config: JobConfig, report: Callable[[Report], None]) -> None:
        self.config = config
        self.ledger = Ledger()
        self.watch = Stopwatch()
        self.distributions = Distributions()
        self.current: Pair | None = None
        self.total_windows = UNKNOWN_TOTAL
        self._report = report
        self._pairs: weakref.WeakKeyDictionary[
            optim.Optimizer, weakref.WeakKeyDictionary[nn.Module, Pair]
        ] = weakref.WeakKeyDictionary()

    def turn_to(self, model: nn.Module, optimizer: optim.Optimizer) -> Pair:
        """The pair that runs from now on; raises WorkloadError or ConfigError where it cannot be trained."""
        pair = self._known(model, optimizer)
        if pair is None:
            pair = self._made(model, optimizer)
            self._pairs.setdefault(optimizer, weakref.WeakKeyDictionary())[model] = pair
        if pair is not self.current:
            self._set_aside()
            self.ledger.kept, self.ledger.last_scale = pair.kept, pair.last_scale
            self.ledger.flops = pair.flops
            self.current = pair
        return pair

    # What a Boundary governs.

    @property
    def precision(self) -> Precision:
        """What the present pair's next window is first attempted at."""
        return self._trainer.precision

    @property
    def choice(self) -> Choice | None:
        """That, with its reason; None before the first pair."""
        return self.current.trainer.choice if self.current is not None else None

    @property
    def next_lr(self) -> float | None:
        """Not known here: the program sets it as it likes."""
        return None

    @property
    def capability(self) -> Capability:
        """What the present pair's device does natively."""
        return self._trainer.capability

    @property
    def injector(self) -> Injector:
        """Where faults are armed for the present pair."""
        return self._trainer.injector

    def check(self, config: JobConfig) -> None:
        """Raise ConfigError where `configure` would."""
        refuse_foreign(change.differences(self.config, config))
        refuse_unfit(config.amp)
        for pair in self._all():
            pair.trainer.choose(config)

    def configure(self, config: JobConfig) -> None:
        """Take over a configuration in all pairs; raises ConfigError with nothing changed."""
        self.check(config)
        for pair in self._all():
            pair.trainer.configure(config)
            pair.emulation.warn(pair.trainer.choice)
        self.config = config

    def divide(self, parts: int) -> None:
        """Divide the micro-batches of all pairs."""
        for pair in self._all():
            pair.trainer.divide(parts)

    def reset_scale(self) -> None:
        """Put the loss scale of all pairs back to where it began."""
        for pair in self._all():
            pair.trainer.reset_scale()

    @property
    def _trainer(self) -> Trainer:
        assert self.current is not None, "nothing is asked of a pair before the first step"
        return self.current.trainer

    def _all(self) -> Iterator[Pair]:
        return (pair for pairs in self._pairs.values() for pair in pairs.values())

    def _known(self, model: nn.Module, optimizer: optim.Optimizer) -> Pair | None:
        """The pair, unless its model was moved to another device since."""
        try:
            pair = self._pairs[optimizer][model]
        except (KeyError, TypeError):  # TypeError: what cannot be referenced weakly is refused by name
            return None
        parts = pair.trainer.parts
        return pair if next(iter(parts.parameters)).device == parts.device else None

    def _set_aside(self) -> None:
        if self.current is not None:
            self.current.kept, self.current.last_scale = self.ledger.kept, self.ledger.last_scale
            self.current.flops = self.ledger.flops

    def _made(self, model: nn.Module, optimizer: optim.Optimizer) -> Pair:
        device = device_of(model, optimizer)
        # A proxy is callable where what it stands for is, which its type cannot say.
        trained: Any = weakref.proxy(model)
        workload = CallWorkload(trained)
        cap_memory(self.config.amp, device)
        stepped: optim.Optimizer = weakref.proxy(optimizer)
        parts = outfit(
            self.config, workload, device, self._report, optimizer=stepped,
            parameters=Optimized(stepped), ledger=self.ledger, sampled=self.distributions.sampled,
        )  # fmt: skip
        trainer = Trainer(self.config, parts, capability_of(device), UNKNOWN_TOTAL, rates=OwnRates(stepped))
        emulation = Emulation(device, self._report)
        emulation.warn(trainer.choice)
        telemetry = Telemetry(
            trainer, lambda _rows: None, self._report, self.watch, self.distributions, base=Counts()
        )
        return Pair(trainer=trainer, workload=workload, telemetry=telemetry, emulation=emulation)


class Optimized(Sequence[nn.Parameter]):
    """The parameters in an optimizer's groups, always as they are now: a loop may add groups or unfreeze layers."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self._optimizer = optimizer

    def __len__(self) -> int:
        return sum(len(group["params"]) for group in self._optimizer.param_groups)

    def __iter__(self) -> Iterator[nn.Parameter]:
        return (p for group in self._optimizer.param_groups for p in group["params"])

    @overload
    def __getitem__(self, index: int) -> nn.Parameter: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[nn.Parameter]: ...

    def __getitem__(self, index: int | slice) -> nn.Parameter | Sequence[nn.Parameter]:
        return list(self)[index]
