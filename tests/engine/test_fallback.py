"""RECOVER alone: which rungs follow which failure, what each replay finds, and which cause is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import nn

from ampd.core.ledger import Cause
from ampd.core.precision import Precision
from ampd.engine.stages.fallback import rungs_of
from ampd.engine.trainer import Trainer
from ampd.engine.window import Attempt, MicroBatch, Verdict, Window
from ampd.errors import PipelineError
from tests.engine import toy
from tests.engine.rings import (
    BAD_GRADIENT,
    BAD_LOSS,
    FINITE,
    UNJUDGED,
    Script,
    attempt_at,
    stage,
    stage_of,
)

ALL_RUNGS = ["retry", "bfloat16", "float32"]
SCALED = {**BAD_GRADIENT, "scale": 8.0}

# dtype, ladder, answers of the attempts -> precisions tried, cause
LADDERS: list[tuple[str, list[str], list[dict[str, Any]], list[str], Cause | None]] = [
    ("float16", ["float32"], [FINITE], ["float16"], None),
    ("float16", ["float32"], [BAD_LOSS, FINITE], ["float16", "float32"], Cause.FORWARD),
    ("bfloat16", ["float32"], [BAD_LOSS, FINITE], ["bfloat16", "float32"], Cause.FORWARD),
    ("bfloat16", ["float32"], [BAD_GRADIENT, FINITE], ["bfloat16", "float32"], Cause.BACKWARD),
    ("float16", ALL_RUNGS, [SCALED, FINITE], ["float16", "float16"], Cause.SCALE),
    ("float16", ALL_RUNGS, [SCALED, SCALED, FINITE], ["float16", "float16", "bfloat16"], Cause.BACKWARD),
    ("float16", ALL_RUNGS, [BAD_LOSS, FINITE], ["float16", "bfloat16"], Cause.FORWARD),
    ("float16", ALL_RUNGS, [BAD_LOSS, BAD_LOSS, FINITE], ["float16", "bfloat16", "float32"], Cause.FORWARD),
    ("bfloat16", ALL_RUNGS, [BAD_GRADIENT, FINITE], ["bfloat16", "bfloat16"], Cause.TRANSIENT),
    ("bfloat16", ["bfloat16", "float32"], [BAD_LOSS, FINITE], ["bfloat16", "float32"], Cause.FORWARD),
    ("float32", ALL_RUNGS, [FINITE], ["float32"], None),
]


@pytest.mark.parametrize(("dtype", "ladder", "answers", "precisions", "cause"), LADDERS)
def test_a_failure_goes_down_the_ladder(
    dtype: str, ladder: list[str], answers: list[dict[str, Any]], precisions: list[str], cause: Cause | None
) -> None:
    """Rungs come in their order, only wider ones, `retry` only where the loss was finite; the last names the cause."""
    inner = Script(*answers)

    outcome = stage("fallback", amp={"dtype": dtype, "ladder": ladder})(attempt_at(dtype), inner)

    assert inner.precisions == precisions
    assert (outcome.verdict, outcome.cause) == (Verdict.FINITE, cause)
    assert [rung for _cause, rung in outcome.replays] == [
        "retry" if tried == dtype else tried for tried in precisions[1:]
    ]


def test_a_replay_is_a_fresh_attempt_at_the_same_window() -> None:
    """It has the window, the next rung's number, and no scale of the attempt before it."""
    inner = Script(BAD_LOSS, FINITE)
    first = attempt_at("float16", loss_scale=torch.tensor([8.0]))

    stage("fallback", amp={"dtype": "float16"})(first, inner)

    again = inner.attempts[1]
    assert again.window is first.window
    assert (again.rung, again.loss_scale) == (1, None)


def test_the_outcome_remembers_the_scale_that_failed() -> None:
    """The record of a window that fell back shows the scale that it was first tried at."""
    inner = Script({**BAD_LOSS, "scale": 8.0}, FINITE)

    outcome = stage("fallback", amp={"dtype": "float16"})(attempt_at("float16"), inner)

    assert outcome.scale == 8.0


@pytest.mark.parametrize(
    "amp", [{"dtype": "float16", "enable_fallback_to_fp32": False}, {"dtype": "float32"}]
)
def test_without_rungs_a_bad_window_stays_bad(amp: dict[str, Any]) -> None:
    """Where nothing wider is allowed or there is, one attempt is all, and its verdict stands."""
    inner = Script(BAD_LOSS)

    outcome = stage("fallback", amp=amp)(attempt_at(amp["dtype"]), inner)

    assert (outcome.verdict, outcome.replays) == (Verdict.NONFINITE, ())
    assert len(inner.attempts) == 1


@pytest.mark.parametrize(("poisoned", "cause"), [(False, Cause.MODEL), (True, Cause.DATA)])
def test_bad_in_float32_is_the_data_or_the_model(poisoned: bool, cause: Cause) -> None:
    """Which of them is told by the inputs: an input that is not finite is the data's fault."""
    x = torch.tensor([[float("inf") if poisoned else 1.0]])
    window = Window(number=0, epoch=0, micro_batches=(MicroBatch(tensors={"x": x}, samples=1),))
    attempt = Attempt(window=window, precision=Precision.FLOAT16)

    outcome = stage("fallback", amp={"dtype": "float16"})(attempt, Script(BAD_LOSS, BAD_LOSS))

    assert (outcome.verdict, outcome.cause) == (Verdict.NONFINITE, cause)
    assert outcome.replays == ((Cause.FORWARD, "float32"),)


def test_inputs_that_are_not_numbers_are_not_asked() -> None:
    """Token ids and masks are always finite: the fault is the model's."""
    tensors = {"ids": torch.tensor([[1]]), "mask": torch.tensor([[True]])}
    window = Window(number=0, epoch=0, micro_batches=(MicroBatch(tensors=tensors, samples=1),))
    attempt = Attempt(window=window, precision=Precision.FLOAT32)

    outcome = stage("fallback", amp={"dtype": "float32"})(attempt, Script(BAD_LOSS))

    assert outcome.cause is Cause.MODEL


@pytest.mark.parametrize("answers", [[UNJUDGED], [BAD_LOSS, UNJUDGED]])
def test_an_attempt_without_a_verdict_is_an_error(answers: list[dict[str, Any]]) -> None:
    """Nobody looked at it: it is never taken for finite, neither at first nor as a replay."""
    with pytest.raises(PipelineError, match="unjudged; the stage in slot SCALE must set the verdict"):
        stage("fallback", amp={"dtype": "float16"})(attempt_at("float16"), Script(*answers))


def norm_of(subject: Trainer) -> nn.BatchNorm1d:
    """The toy's BatchNorm."""
    (norm,) = [module for module in subject.parts.model.modules() if isinstance(module, nn.BatchNorm1d)]
    return norm


def test_every_attempt_finds_the_same_state() -> None:
    """Generators and buffers are where they were for each rung: same draws, and a batch is counted once."""
    subject = toy.trainer(amp={"dtype": "float16", "ladder": ALL_RUNGS})
    norm = norm_of(subject)
    seen: list[tuple[float, float]] = []

    def run(_attempt: Attempt) -> None:
        norm.get_buffer("num_batches_tracked").add_(1)
        seen.append((torch.rand(()).item(), norm.get_buffer("num_batches_tracked").item()))

    inner = Script(SCALED, SCALED, SCALED, FINITE, meanwhile=run)
    stage_of(subject, "fallback")(attempt_at("float16"), inner)

    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert norm.get_buffer("num_batches_tracked").item() == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_window_that_stays_bad_leaves_no_trace_in_buffers(dtype: str) -> None:
    """NaN in running statistics would outlive the window by far."""
    subject = toy.trainer(amp={"dtype": dtype})
    norm = norm_of(subject)

    def poison(_attempt: Attempt) -> None:
        norm.get_buffer("running_mean").fill_(float("nan"))

    stage_of(subject, "fallback")(attempt_at(dtype), Script(BAD_LOSS, BAD_LOSS, meanwhile=poison))

    assert not norm.get_buffer("running_mean").any()


def test_the_float32_rung_is_true_float32() -> None:
    """TF32 is off for the last rung alone, backward included, and comes back, also when the rung fails."""
    switch = torch.backends.cuda.matmul
    seen: list[str] = []
    subject = stage("fallback", amp={"dtype": "float16", "enable_tf32": True})

    for answers in ([BAD_LOSS, FINITE], [BAD_LOSS, UNJUDGED]):
        inner = Script(*answers, meanwhile=lambda _attempt: seen.append(switch.fp32_precision))
        try:
            subject(attempt_at("float16"), inner)
        except PipelineError:
            seen.append("failed")
        seen.append(switch.fp32_precision)

    assert seen == ["tf32", "ieee", "tf32", "tf32", "ieee", "failed", "tf32"]


def test_the_ladder_is_live() -> None:
    """A ladder that was changed between windows holds for the next bad one."""
    subject = toy.trainer(amp={"dtype": "float16"})
    fallback, inner = stage_of(subject, "fallback"), Script(BAD_LOSS, FINITE)

    fallback.configure(toy.config(amp={"dtype": "float16", "ladder": ["bfloat16", "float32"]}))
    fallback(attempt_at("float16"), inner)

    assert inner.precisions == ["float16", "bfloat16"]


def test_only_wider_rungs_can_follow() -> None:
    """Rungs for a precision: never the same again but by `retry`, never a narrower one, none where it is off."""
    amp = toy.config(amp={"ladder": ALL_RUNGS}).amp
    off = toy.config(amp={"ladder": ALL_RUNGS, "enable_fallback_to_fp32": False}).amp

    assert rungs_of(amp, Precision.FLOAT16) == ("retry", "bfloat16", "float32")
    assert rungs_of(amp, Precision.BFLOAT16) == ("retry", "float32")
    assert rungs_of(amp, Precision.FLOAT32) == rungs_of(off, Precision.FLOAT16) == ()


def test_a_finite_window_is_passed_on_as_it_is() -> None:
    """In a good window the stage changes nothing."""
    inner = Script(FINITE)
    outcome = stage("fallback", amp={"dtype": "float16"})(attempt_at("float16"), inner)

    assert outcome == replace(outcome, attempt=inner.attempts[0], cause=None, replays=())
