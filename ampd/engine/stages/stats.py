"""OBSERVE: the span figures of the ledger, taken where a window's final outcome passes. It changes nothing."""

from __future__ import annotations

from ampd.core.config import JobConfig
from ampd.core.ledger import Ledger
from ampd.core.spec import NoOptions
from ampd.engine.pipeline import Proceed
from ampd.engine.stages.context import StageContext
from ampd.engine.window import Attempt, Outcome, Verdict


class Stats:
    """Adds the loss and the scale of each window to the ledger's span while `amp.track_amp_stats` holds."""

    def __init__(self, config: JobConfig, ledger: Ledger) -> None:
        self.is_tracking = config.amp.track_amp_stats
        self._ledger = ledger

    def __call__(self, attempt: Attempt, proceed: Proceed) -> Outcome:
        outcome = proceed(attempt)
        if self.is_tracking and outcome.verdict is not Verdict.PENDING:
            self._ledger.observe(outcome.loss, outcome.scale, outcome.attempt.precision)
        return outcome

    def settled(self, outcome: Outcome) -> None:
        """Take in a pending outcome whose figures have arrived and were good."""
        if self.is_tracking:
            self._ledger.observe(outcome.loss, outcome.scale, outcome.attempt.precision)

    def configure(self, config: JobConfig) -> None:
        """Start or stop tracking."""
        self.is_tracking = config.amp.track_amp_stats


def build(options: NoOptions, context: StageContext) -> Stats:
    """The stage of the built-in spec."""
    return Stats(context.config, context.ledger)
