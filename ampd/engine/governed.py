"""What a boundary governs: a trainer with its one job, or the pairs of a program's own loop as one.

A protocol and no base class, because the two share no state: what they have in common is what actions act on.
"""

from __future__ import annotations

from typing import Protocol

from ampd.core.config import JobConfig
from ampd.core.ledger import Ledger
from ampd.core.precision import Capability, Choice, Precision
from ampd.engine.inject import Injector


class Governed(Protocol):
    """What actions act on: a trainer, or several as one."""

    config: JobConfig
    total_windows: int
    """When the job is complete; 0 where that is not known."""

    @property
    def precision(self) -> Precision:
        """What the next window is first attempted at."""
        ...

    @property
    def choice(self) -> Choice | None:
        """That, with its reason, as soon as it is known."""
        ...

    @property
    def next_lr(self) -> float | None:
        """The learning rate of the next update; None where it is the program's own."""
        ...

    @property
    def capability(self) -> Capability:
        """What the device does natively."""
        ...

    @property
    def ledger(self) -> Ledger:
        """What became of every window."""
        ...

    @property
    def injector(self) -> Injector:
        """Where faults are armed."""
        ...

    def configure(self, config: JobConfig) -> None:
        """Take over a configuration; raises ConfigError with nothing changed."""
        ...

    def divide(self, parts: int) -> None:
        """Divide every micro-batch into so many parts, or into as many as it is divided already."""
        ...

    def reset_scale(self) -> None:
        """Put the loss scale back to where it began."""
        ...
