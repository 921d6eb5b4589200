"""The library face: what a program makes once, and what it can ask and change while its loop runs.

It decides and computes nothing: steps are the engine's, changes go through the same `Boundary` as those of `ampctl`,
and figures are those of the same ledger. What a job would tell its supervisor is logged under the name "ampd".
"""

from __future__ import annotations

import queue
from typing import Any

import msgspec

from ampd.core import messages as m
from ampd.core.amp import AMPConfig
from ampd.core.change import change
from ampd.core.ledger import Ledger
from ampd.engine.boundary import Boundary
from ampd.optimizer.pairs import Pairs
from ampd.optimizer.reports import Reports
from ampd.optimizer.serving import Serving, served
from ampd.optimizer.settings import PerformanceConfig, changes_to, checked, job_of
from ampd.optimizer.training import TrainingOptimizer

_MEGABYTE = 1_000_000


def create_performance_optimizer(config: PerformanceConfig | None = None) -> PerformanceOptimizer:
    """The engine for one loop; without a configuration, float16 with loss scaling. Raises ConfigError."""
    settings = checked(config if config is not None else PerformanceConfig())
    reports = Reports()
    return PerformanceOptimizer(settings, Pairs(job_of(settings), reports), reports)


class PerformanceOptimizer:
    """Mixed precision for a program's own loop; made by `create_performance_optimizer`, for the loop's thread."""

    def __init__(self, settings: PerformanceConfig, pairs: Pairs, reports: Reports) -> None:
        self._settings = settings
        self._pairs = pairs
        self._reports = reports
        self._boundary = Boundary(pairs, queue.SimpleQueue(), reports, pairs.config)
        self.training_optimizer = TrainingOptimizer(pairs, self._boundary)

    def get_amp_stats(self) -> dict[str, float | None]:
        """Figures since the start or the last `reset_amp_stats`; None where there is nothing to take them from.

        Steps are windows, that is, optimizer updates. `amp_steps` are those that low precision was enough for. Memory is
        what a batch keeps less for its backward pass than in float32, measured in samples and counted for each step.
        """
        return stats(self._pairs.ledger)

    def reset_amp_stats(self) -> None:
        """Begin a new span of figures, and a new count towards `max_fp32_fallbacks`: for the start of an epoch."""
        self._act(m.Reset(what="stats"))
        self._act(m.Reset(what="fallback-budget"))

    def update_amp_config(self, amp_config: AMPConfig) -> None:
        """Run windows under other AMP settings from the next one on; raises ConfigError with nothing changed.

        The loss scale of float16 is kept while another dtype is in force.
        """
        changes = changes_to(self._pairs.config, amp_config)
        if changes:
            self._pairs.check(change(self._pairs.config, changes))
            self._act(m.Configure(changes=changes))

    def get_optimization_status(self) -> dict[str, Any]:
        """What holds now: the level asked for, the precision with its reason, and the AMP settings in force."""
        pairs, choice = self._pairs, self._pairs.choice
        return {
            "level": self._settings.level,
            "precision": choice.precision if choice is not None else None,
            "reason": choice.reason if choice is not None else "known at the first step",
            "device": str(pairs.current.trainer.parts.device) if pairs.current is not None else None,
            "revision": self._boundary.live.revision,
            "scale": pairs.ledger.last_scale,
            "max_grad_norm": pairs.config.clip.max_norm,
            **self.training_optimizer.get_gradient_accumulation_status(),
            "amp": msgspec.structs.asdict(pairs.config.amp),
        }

    def serve(self, name: str = "notebook", *, listen: str = "127.0.0.1:9647") -> Serving:
        """Give this program `ampctl` and /metrics, by a daemon that is attached to it and ends with it.

        `name` is what `ampctl --job` takes, `listen` the address of /metrics (port 0 takes a free one). Orders take
        effect at the next step. Raises ConfigError, or JobConflictError where another daemon has the name.
        """
        if self.training_optimizer.serving is not None:
            self.training_optimizer.serving.close()
        self._pairs.config = served(self._pairs.config, name, listen)
        self.training_optimizer.serving = Serving.begin(self._pairs.config, self._pairs, self._reports)
        return self.training_optimizer.serving

    def _act(self, action: m.Action) -> None:
        act = m.Act(request_id="", action=action, author="program")
        self._boundary.act(act, self._pairs.ledger.job.windows)


def stats(ledger: Ledger) -> dict[str, float | None]:
    """The figures of a ledger's span, by the names of the library face."""
    span, scale, saved = ledger.span, ledger.scale, ledger.saved_bytes
    steps, fallbacks = span.windows, sum(span.fp32_fallbacks.values())
    stayed = span.low_precision - fallbacks
    return {
        "total_steps": steps,
        "amp_steps": stayed,
        "fp32_fallbacks": fallbacks,
        "amp_usage_ratio": stayed / steps if steps else 0.0,
        "fp32_fallback_ratio": span.fallback_ratio,
        "avg_scaler_scale": scale.mean,
        "min_scaler_scale": scale.least,
        "max_scaler_scale": scale.greatest,
        "total_memory_saved_mb": saved.total / _MEGABYTE if saved.count else None,
        "avg_memory_saved_mb": saved.mean / _MEGABYTE if saved.mean is not None else None,
    }
