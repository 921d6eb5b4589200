"""What a stage is built with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ampd.core.config import JobConfig
from ampd.core.ledger import Ledger
from ampd.core.messages import Report
from ampd.engine.memory import Shortages
from ampd.engine.ranks import Alone, Ranks
from ampd.engine.rewind import Rewind


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """The parts of the engine that a stage may use; `emit` sends a report upward and never blocks."""

    config: JobConfig
    model: nn.Module
    parameters: Sequence[nn.Parameter]
    device: torch.device
    rewind: Rewind
    ledger: Ledger
    emit: Callable[[Report], None]
    ranks: Ranks = field(default_factory=Alone)
    shortages: Shortages = field(default_factory=Shortages)
