"""One step of a user's own loop: calls are gathered to a window, and the window is run as any window of a job.

    call 1 .. N-1   held: nothing is computed, data and target are kept
    call N          boundary -> attempt -> commit, all by the engine; the result says what became of the window

The window's whole data is in hand before its first forward, because that is what makes a replay possible; so a held
call has no loss and no output yet. The verdict is read before the call returns (`sync`): whoever asks for the loss of a
step waits for it anyway. A call that raises leaves nothing behind: no held calls, no gradients, buffers as before.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn, optim

from ampd.core.ledger import WindowRecord
from ampd.core.precision import Precision
from ampd.engine.boundary import Boundary
from ampd.engine.execute import clear_gradients
from ampd.engine.window import Window
from ampd.errors import WorkloadError
from ampd.optimizer.call import Call, Criterion
from ampd.optimizer.pairs import Pair, Pairs
from ampd.optimizer.serving import Serving


class StepResult(TypedDict):
    """What became of a call. A held one has no loss, output, precision, cause or scale yet."""

    loss: Tensor | None
    """The mean loss over the window's calls: a scalar on the host, read already, so `.item()` waits for nothing."""
    output: Any
    """What the model gave for this call, detached."""
    applied: bool
    """Whether the optimizer stepped."""
    precision: Precision | None
    """What the window was last run at: float32 where it fell back."""
    cause: str | None
    """Why it fell back or was not applied."""
    scale: float | None
    """The loss scale of the window; None where none was used."""
    held: bool


class AccumulationStatus(TypedDict):
    """How far the present window has come."""

    gradient_accumulation_steps: int
    held: int
    windows: int
    """Windows that were run so far."""


HELD: StepResult = {
    "loss": None, "output": None, "applied": False, "precision": None, "cause": None, "scale": None, "held": True,
}  # fmt: skip


class TrainingOptimizer:
    """Runs the steps of one loop; for the loop's thread."""

    def __init__(self, pairs: Pairs, boundary: Boundary) -> None:
        self._pairs = pairs
        self._boundary = boundary
        self.serving: Serving | None = None

    def training_step(
        self, model: nn.Module, data: Any, target: Any, criterion: Criterion, optimizer: optim.Optimizer
    ) -> StepResult:
        """Train `model` on one batch: `criterion(model(data), target)`, backward, and `optimizer.step()` if it is finite.

        A tuple of data is given to the model as positional arguments, a mapping as keyword arguments; tensors are moved
        to the model's device. The criterion gives the mean loss of the batch. Raises WorkloadError where the arguments
        cannot be trained, or by `on_bad_window` or `on_fallback_limit = "abort"`; whatever model and criterion raise
        comes through.
        """
        pair = self._pairs.turn_to(model, optimizer)
        pair.held.append(Call.of(data, target, criterion))
        if len(pair.held) < self._pairs.config.batch.accumulate:
            return HELD.copy()
        calls, pair.held = tuple(pair.held), []
        try:
            record = self._run(pair, calls)
        except BaseException:
            clear_gradients(pair.trainer.parts.parameters)
            raise
        return _result(record, pair.workload.take_output())

    def get_gradient_accumulation_status(self) -> AccumulationStatus:
        """How many calls of the present window are held, of how many."""
        current = self._pairs.current
        return {
            "gradient_accumulation_steps": self._pairs.config.batch.accumulate,
            "held": len(current.held) if current is not None else 0,
            "windows": self._pairs.ledger.job.windows,
        }

    def _run(self, pair: Pair, calls: tuple[Call, ...]) -> WindowRecord:
        window = Window(number=self._pairs.ledger.job.windows, epoch=0, micro_batches=calls)
        watch = self._pairs.watch
        fetched = watch.lap("data")
        self._cross(pair, window.number)
        breakdown = pair.trainer.parts.breakdown
        if pair.is_probed:
            breakdown.begin()
        else:
            pair.trainer.probe(window)
            pair.is_probed = True
        breakdown.fetched()
        (record,) = pair.trainer.step(window)
        breakdown.end()
        trained = watch.lap("train")
        self._pairs.distributions.window_seconds.add(fetched + trained)
        self._boundary.live.timed(trained)
        pair.telemetry.record(record)
        self._boundary.judge(record)
        if self.serving is not None:
            pair.telemetry.push_if_due(window.number + 1, self._boundary.live)
        watch.lap("telemetry")
        if self._boundary.failure:
            failure, self._boundary.failure = self._boundary.failure, ""  # whoever catches it may go on
            raise WorkloadError(failure)
        return record

    def _cross(self, pair: Pair, number: int) -> None:
        """Apply what was ordered; whoever asks after an answer sees its effect."""
        if self.serving is not None:
            self.serving.bring(self._boundary, pair)
        if self._boundary.has_work(number):
            self._boundary.cross(number)
            if self._boundary.wants_snapshot:
                pair.telemetry.push(number, self._boundary.live)


def _result(record: WindowRecord, output: Any) -> StepResult:
    cause = record.skipped or (record.replays[-1][0] if record.replays else None)
    return {
        "loss": torch.tensor(record.loss), "output": output, "applied": record.skipped is None,
        "precision": record.precision, "cause": str(cause) if cause is not None else None,
        "scale": record.scale, "held": False,
    }  # fmt: skip
