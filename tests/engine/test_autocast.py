"""CAST alone: it enters no context itself, and each precision's context does what its name says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ampd.core.change import change
from ampd.engine.window import Attempt
from tests.engine import toy
from tests.engine.rings import FINITE, Script, attempt_at, stage


@pytest.fixture(autouse=True)
def _process_settings() -> Iterator[None]:
    """Puts back what the stage sets for the whole process."""
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.benchmark
    yield
    torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.benchmark = before


def product_in(attempt: Attempt) -> torch.dtype:
    """What a matrix product is computed in, in the context of an attempt."""
    with attempt.forward_context():
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_the_context_is_that_of_the_attempt(precision: str) -> None:
    """What the attempt says decides, not what the configuration would begin with."""
    inner = Script(FINITE)

    stage("autocast", amp={"dtype": "float32"})(attempt_at(precision), inner)

    assert product_in(inner.attempts[0]) is getattr(torch, precision)


def test_float32_switches_an_outer_autocast_off() -> None:
    """A loop that calls us under its own autocast gets true float32 where it is promised."""
    inner = Script(FINITE)
    stage("autocast")(attempt_at("float32"), inner)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product_in(inner.attempts[0]) is torch.float32


def test_the_stage_enters_no_context_itself() -> None:
    """Autocast must never cover backward, so only `execute` enters it, around forward and loss."""
    seen: list[bool] = []

    stage("autocast")(
        attempt_at("float16"),
        Script(FINITE, meanwhile=lambda _: seen.append(torch.is_autocast_enabled("cpu"))),
    )

    assert seen == [False]


def test_a_context_can_be_entered_for_each_micro_batch() -> None:
    """It is a factory: entering it twice is two scopes, and it leaves nothing on."""
    inner = Script(FINITE)
    stage("autocast")(attempt_at("float16"), inner)

    dtypes = [product_in(inner.attempts[0]) for _ in range(2)]

    assert dtypes == [torch.float16, torch.float16]
    assert not torch.is_autocast_enabled("cpu")


def test_nothing_else_of_the_attempt_changes() -> None:
    """Scale, window, rung and precision go through."""
    inner, scale = Script(FINITE), torch.tensor([8.0])
    attempt = attempt_at("float16", loss_scale=scale, rung=2)

    stage("autocast")(attempt, inner)

    (passed,) = inner.attempts
    assert (passed.window, passed.rung, passed.precision) == (attempt.window, 2, attempt.precision)
    assert passed.loss_scale is scale


@pytest.mark.parametrize(
    ("sections", "tf32", "benchmark"),
    [
        ({}, "tf32", True),
        ({"amp": {"enable_tf32": False, "enable_cudnn_benchmark": False}}, "ieee", False),
        ({"device": {"deterministic": True}}, "tf32", False),
    ],
)
def test_process_settings_follow_the_configuration(
    sections: dict[str, dict[str, Any]], tf32: str, benchmark: bool
) -> None:
    """TF32 and cuDNN's benchmark are live; a deterministic job never benchmarks."""
    torch.backends.cudnn.benchmark = not benchmark

    stage("autocast").configure(toy.config(**sections))  # type: ignore[attr-defined]  # every Configurable has it

    assert torch.backends.cuda.matmul.fp32_precision == tf32
    assert torch.backends.cudnn.benchmark is benchmark


def test_a_change_elsewhere_leaves_the_settings_of_the_process_alone() -> None:
    """They belong to the whole process: whoever moved them since is not overruled by a new learning rate."""
    subject = toy.trainer()
    torch.backends.cudnn.benchmark = False
    assert subject.config.amp.enable_cudnn_benchmark

    subject.configure(change(subject.config, {"optim.lr": 0.5}))
    assert torch.backends.cudnn.benchmark is False

    subject.configure(change(subject.config, {"amp.hysteresis": 2}))
    assert torch.backends.cudnn.benchmark is True
