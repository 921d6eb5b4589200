"""Whose learning rate it is: the job file's schedule, or that of a loop which keeps its own.

The trainer asks for the rate of an update before it makes it, and has it put into the optimizer with the commit. A
job's rate is a pure function of applied updates. Under a user's own loop the optimizer's groups are the user's, changed
between calls by whatever scheduler they like, so there it is only read. A strategy instead of a flag, since a trainer
that writes rates and one that must not would otherwise differ in five places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, optim

from ampd.core.config import OptimSection
from ampd.core.schedule import learning_rate
from ampd.engine.optim import set_rates


class Rates(Protocol):
    """The learning rate of each update, and how it comes into the optimizer."""

    def after(self, applied: int, section: OptimSection) -> float:
        """The rate of the update that comes after `applied` updates."""
        ...

    def put(self, optimizer: optim.Optimizer, rate: float | Tensor, section: OptimSection) -> None:
        """Make `optimizer` take its next step at `rate`."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """The job file's warm-up and decay, over all windows of the job."""

    total_windows: int

    def after(self, applied: int, section: OptimSection) -> float:
        """The schedule's rate."""
        return learning_rate(section, applied, self.total_windows)

    def put(self, optimizer: optim.Optimizer, rate: float | Tensor, section: OptimSection) -> None:
        """Overwrite rate and weight decay of every group."""
        set_rates(optimizer, rate, section)


@dataclass(frozen=True, slots=True)
class OwnRates:
    """The rates that the user's loop keeps in its optimizer; read, never written."""

    optimizer: optim.Optimizer

    def after(self, applied: int, section: OptimSection) -> float:
        """What the first group says now; a rate that is a tensor on the device is waited for."""
        return float(self.optimizer.param_groups[0]["lr"])

    def put(self, optimizer: optim.Optimizer, rate: float | Tensor, section: OptimSection) -> None:
        """Leave it to the user's loop."""
