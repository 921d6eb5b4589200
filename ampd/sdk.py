"""Everything that a plugin may import, and nothing that it may not.

A spec module must not load torch: it imports `StageSpec`, `WorkloadSpec`, `Slot` and `ConfigError` from here, which
is why the names that need torch are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ampd.core.config import JobConfig
from ampd.core.ledger import Cause
from ampd.core.order import DataOrder
from ampd.core.precision import Precision
from ampd.core.spec import NoOptions, Slot, StageSpec, WorkloadSpec
from ampd.errors import ConfigError, PluginError, WorkloadError

if TYPE_CHECKING:
    from ampd.engine.pipeline import Configurable, Proceed, Stage, Stateful
    from ampd.engine.stages.context import StageContext
    from ampd.engine.window import Attempt, MicroBatch, Outcome, Verdict, Window
    from ampd.engine.workload import Capturing, Evaluating, Randomised, Sharding, Workload, WorkloadContext

_NEEDS_TORCH = {
    "Attempt": "ampd.engine.window",
    "Capturing": "ampd.engine.workload",
    "Configurable": "ampd.engine.pipeline",
    "Evaluating": "ampd.engine.workload",
    "MicroBatch": "ampd.engine.window",
    "Outcome": "ampd.engine.window",
    "Proceed": "ampd.engine.pipeline",
    "Randomised": "ampd.engine.workload",
    "Sharding": "ampd.engine.workload",
    "Stage": "ampd.engine.pipeline",
    "StageContext": "ampd.engine.stages.context",
    "Stateful": "ampd.engine.pipeline",
    "Verdict": "ampd.engine.window",
    "Window": "ampd.engine.window",
    "Workload": "ampd.engine.workload",
    "WorkloadContext": "ampd.engine.workload",
}

__all__ = [
    "Attempt", "Capturing", "Cause", "ConfigError", "Configurable", "DataOrder", "Evaluating", "JobConfig", "MicroBatch",
    "NoOptions", "Outcome", "PluginError", "Precision", "Proceed", "Randomised", "Sharding", "Slot", "Stage", "StageContext", "StageSpec", "Stateful",
    "Verdict", "Window", "Workload", "WorkloadContext", "WorkloadError", "WorkloadSpec",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"ampd.sdk has no {name!r}")
    return getattr(importlib.import_module(_NEEDS_TORCH[name]), name)
