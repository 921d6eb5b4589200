"""A training daemon that makes mixed precision a live, observable, reversible setting of a running job.

The names of the library face are found here, and loaded when they are first used: `import ampd` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ampd.core.amp import AMPConfig
    from ampd.optimizer.performance import PerformanceOptimizer, create_performance_optimizer
    from ampd.optimizer.settings import OptimizationLevel, PerformanceConfig
    from ampd.optimizer.training import TrainingOptimizer

__version__ = "0.1.0"

__all__ = [
    "AMPConfig", "OptimizationLevel", "PerformanceConfig", "PerformanceOptimizer", "TrainingOptimizer",
    "create_performance_optimizer",
]  # fmt: skip

_HOMES = {
    "AMPConfig": "ampd.core.amp",
    "OptimizationLevel": "ampd.optimizer.settings",
    "PerformanceConfig": "ampd.optimizer.settings",
    "PerformanceOptimizer": "ampd.optimizer.performance",
    "TrainingOptimizer": "ampd.optimizer.training",
    "create_performance_optimizer": "ampd.optimizer.performance",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ampd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
