"""RECOVER: the whole idea of the product. A window that was not finite is rewound and replayed wider.

    mark -> attempt -> finite? done : restore -> replay at the next rung -> ... -> still bad: restore buffers

A bad loss skips the `retry` rung: the scale multiplies after the loss, so a smaller one cannot help. What is still
bad in float32 is a fault of the data or the model; it keeps its NONFINITE verdict, and its trace in module buffers is
wiped. The cause is a classification by evidence, not a proof: see `_cause_of`.

A deferred window passes with its verdict PENDING, its buffers selected by the flag on the device; if it turns out bad
it comes back once more (`resolves`) and is replayed after the window that followed it.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

from msgspec.structs import replace

from ampd.core.amp import AMPConfig
from ampd.core.config import JobConfig
from ampd.core.ledger import Cause
from ampd.core.precision import Precision
from ampd.core.spec import NoOptions
from ampd.engine.float32 import true_float32
from ampd.engine.mark import Mark
from ampd.engine.mending import Mended, Mending
from ampd.engine.pipeline import Proceed
from ampd.engine.rewind import Rewind
from ampd.engine.stages.context import StageContext
from ampd.engine.window import Attempt, Outcome, Verdict, flag_of
from ampd.errors import PipelineError

_WIDTH = {Precision.FLOAT16: 0, Precision.BFLOAT16: 1, Precision.FLOAT32: 2}  # by range of the exponent


class Fallback:
    """Replays bad windows down the ladder `amp.ladder`."""

    def __init__(self, config: JobConfig, rewind: Rewind, mending: Mending) -> None:
        self._rewind = rewind
        self._mending = mending
        self._amp: AMPConfig | None = None
        self.configure(config)

    def __call__(self, attempt: Attempt, proceed: Proceed) -> Outcome:
        if attempt.resolves is not None:
            return self._settle(attempt.resolves, proceed)
        mark = self._rewind.mark(rng=bool(self._rungs[attempt.precision]))
        try:
            return self._recover(attempt, mark, proceed)
        except BaseException:
            self._rewind.restore_state(mark)  # whoever catches it goes on with statistics as they were
            raise

    def configure(self, config: JobConfig) -> None:
        """Take over the ladder."""
        if config.amp is self._amp:
            return
        self._amp = config.amp
        self._rungs = {precision: rungs_of(config.amp, precision) for precision in Precision}

    def divide(self, parts: int) -> None:
        """Begin attempts in parts."""
        self._mending.split = max(self._mending.split, parts)

    def _recover(self, attempt: Attempt, mark: Mark, proceed: Proceed) -> Outcome:
        """The window's first attempt, and what it leads to."""
        outcome = self._run(self._mending.prepared(attempt), mark, proceed)
        match outcome.verdict:
            case Verdict.FINITE:
                return outcome
            case Verdict.PENDING:
                self._rewind.select_buffers(flag_of(outcome), mark)
                return replace(outcome, mark=mark)
        return self._descend(outcome, mark, proceed)

    def _settle(self, failed: Outcome, proceed: Proceed) -> Outcome:
        """Replay a window that turned out bad after the next one: from today's buffers, with that day's randomness."""
        today = self._rewind.mark()
        that_day = failed.mark or today
        outcome = self._resolve(failed, replace(today, generators=that_day.generators), proceed)
        self._rewind.set_generators(today.generators)
        return outcome

    def _resolve(self, failed: Outcome, mark: Mark, proceed: Proceed) -> Outcome:
        if not failed.was_struck:
            return self._descend(failed, mark, proceed)
        together = self._mending.mend_together(failed.struck, failed.attempt)
        outcome = self._finish(together, mark, proceed)
        return outcome if outcome.verdict is Verdict.FINITE else self._descend(outcome, mark, proceed)

    def _descend(self, outcome: Outcome, mark: Mark, proceed: Proceed) -> Outcome:
        """Down the ladder until an attempt is finite; the buffers are put back where none is."""
        for rung in self._rungs[outcome.attempt.precision]:
            if rung != "retry" or not _is_forward(outcome):
                outcome = self._replay(outcome, rung, mark, proceed)
            if outcome.verdict is Verdict.FINITE:
                return _with_cause_of_replays(outcome)
        self._rewind.restore_state(mark)
        return replace(_with_cause_of_failure(outcome), mark=mark)

    def _replay(self, failed: Outcome, rung: str, mark: Mark, proceed: Proceed) -> Outcome:
        self._rewind.restore(mark)
        precision = failed.attempt.precision if rung == "retry" else Precision(rung)
        with true_float32() if precision is Precision.FLOAT32 else nullcontext():
            outcome = self._run(failed.attempt.at(precision), mark, proceed)
        return replace(
            outcome,
            replays=(*failed.replays, (_cause_of(failed), rung), *outcome.replays),
            scale=failed.scale,
        )

    def _run(self, attempt: Attempt, mark: Mark, proceed: Proceed) -> Outcome:
        """One attempt; an error that can be mended is, and the attempt made again from the same mark."""
        return self._finish(self._try(attempt, proceed), mark, proceed)

    def _try(self, attempt: Attempt, proceed: Proceed) -> Outcome | Mended:
        """An outcome, or what to do instead: when this returns, the tensors in an error's frames are gone."""
        try:
            outcome = _known(proceed(attempt))
        except RuntimeError as error:
            return self._mending.mend(error, attempt)
        return self._mending.mend_together(outcome.struck, attempt) if outcome.was_struck else outcome

    def _finish(self, tried: Outcome | Mended, mark: Mark, proceed: Proceed) -> Outcome:
        replays: tuple[tuple[Cause, str], ...] = ()
        while isinstance(tried, Mended):
            if tried.cause is not None:
                replays = (*replays, (tried.cause, tried.attempt.precision.value))
            self._rewind.restore(mark)
            tried = self._try(tried.attempt, proceed)
        return replace(tried, replays=replays) if replays else tried

    def state_dict(self) -> dict[str, Any]:
        """What was learned: the split, and the modules that run in float32."""
        return self._mending.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was learned."""
        self._mending.load_state_dict(state)


def rungs_of(amp: AMPConfig, precision: Precision) -> tuple[str, ...]:
    """The rungs that can follow an attempt at `precision`: only wider ones, and none from float32."""
    if not amp.enable_fallback_to_fp32 or not precision.is_low:
        return ()
    return tuple(r for r in amp.ladder if r == "retry" or _WIDTH[Precision(r)] > _WIDTH[precision])


def _is_forward(failed: Outcome) -> bool:
    """The forward pass itself went wrong: its loss, or what it wrote into a buffer."""
    return failed.has_strayed or not math.isfinite(failed.loss)


def _cause_of(failed: Outcome) -> Cause:
    """The cause as far as one failed attempt tells: the loss first; of gradients, the scale where there is one."""
    if _is_forward(failed):
        return Cause.FORWARD
    was_retried = any(rung == "retry" for _cause, rung in failed.replays)
    return Cause.SCALE if failed.scale is not None and not was_retried else Cause.BACKWARD


def _with_cause_of_replays(outcome: Outcome) -> Outcome:
    """A replay that succeeded names the window's cause; a `retry` without a scale suspects the hardware."""
    *before, (cause, rung) = outcome.replays
    if rung == "retry" and outcome.scale is None:
        cause = Cause.TRANSIENT
    return replace(outcome, cause=cause, replays=(*before, (cause, rung)))


def _with_cause_of_failure(outcome: Outcome) -> Outcome:
    """Not finite at the last rung: the data where an input is not finite, else the model, or no rung was left."""
    if outcome.attempt.precision is not Precision.FLOAT32:
        return replace(outcome, cause=_cause_of(outcome))
    inputs = (
        t for m in outcome.attempt.window.micro_batches for t in m.tensors.values() if t.is_floating_point()
    )
    is_clean = all(bool(t.isfinite().all()) for t in inputs)
    return replace(outcome, cause=Cause.MODEL if is_clean else Cause.DATA)


def _known(outcome: Outcome) -> Outcome:
    if outcome.verdict is Verdict.UNJUDGED:
        raise PipelineError("an attempt came back unjudged; the stage in slot SCALE must set the verdict")
    return outcome


def build(options: NoOptions, context: StageContext) -> Fallback:
    """The stage of the built-in spec."""
    return Fallback(
        context.config,
        context.rewind,
        Mending(context.model, context.device, context.emit, context.ranks, context.shortages),
    )
