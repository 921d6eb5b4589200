"""SHAPE alone: gradients are scaled down exactly as torch does it, and only when they are to be applied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ampd.engine.window import Verdict
from tests.engine import toy
from tests.engine.rings import BAD_LOSS, FINITE, WHOLE_RUNS, Script, attempt_at, stage_of


def clipped(max_norm: float | None, fill: float, **answer: Any) -> tuple[list[Tensor], Any]:
    """The gradients and the outcome after a window whose gradients were all `fill`."""
    subject = toy.trainer(clip={"max_norm": max_norm})
    for parameter in subject.parts.parameters:
        parameter.grad = torch.full_like(parameter, fill)
    norm = torch.nn.utils.get_total_norm([p.grad for p in subject.parts.parameters if p.grad is not None])
    answers = {**FINITE, "grad_norm": norm, "norm": norm.item(), **answer}

    outcome = stage_of(subject, "clip")(attempt_at("float32"), Script(answers))

    return [p.grad for p in subject.parts.parameters if p.grad is not None], outcome


@WHOLE_RUNS
@given(fill=st.floats(2.0**-20, 2.0**20, width=32), max_norm=st.floats(1e-6, 1e6))
def test_clipping_is_torchs_bit_for_bit(fill: float, max_norm: float) -> None:
    """The same coefficient and the same product as clip_grad_norm_ gives, whether it binds or not."""
    expected = [torch.nn.Parameter(torch.zeros_like(p)) for p in toy.Toy().model.parameters()]
    for parameter in expected:
        parameter.grad = torch.full_like(parameter, fill)
    torch.nn.utils.clip_grad_norm_(expected, max_norm)

    gradients, _ = clipped(max_norm, fill)

    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, expected, strict=True) if p.grad is not None)


def test_the_norm_is_that_which_scaling_took() -> None:
    """No second norm is computed: an outcome that says 10 is scaled by a tenth, whatever its gradients are."""
    gradients, outcome = clipped(1.0, 1.0, grad_norm=torch.tensor(10.0), norm=10.0)

    assert outcome.clipped
    assert all(torch.allclose(g, torch.full_like(g, 0.1), rtol=1e-5) for g in gradients)


@pytest.mark.parametrize(
    ("max_norm", "answer"),
    [
        (None, {}),
        (1e9, {}),
        (0.1, {**BAD_LOSS, "grad_norm": torch.tensor(float("nan"))}),
    ],
)
def test_what_needs_no_clipping_is_left_alone(max_norm: float | None, answer: dict[str, Any]) -> None:
    """No limit, a norm under it, or a window that will not be applied."""
    gradients, outcome = clipped(max_norm, 3.0, **answer)

    assert not outcome.clipped
    assert all(torch.equal(g, torch.full_like(g, 3.0)) for g in gradients)


def test_parameters_without_a_gradient_are_passed_over() -> None:
    """A part of the model that took no part in the window is not touched."""
    subject = toy.trainer(clip={"max_norm": 1.0})
    first, *others = subject.parts.parameters
    first.grad = torch.full_like(first, 2.0)
    answer = {**FINITE, "grad_norm": torch.tensor(4.0), "norm": 4.0}

    stage_of(subject, "clip")(attempt_at("float32"), Script(answer))

    assert torch.allclose(first.grad, torch.full_like(first, 0.5))
    assert all(p.grad is None for p in others)


def test_the_limit_is_live() -> None:
    """A limit that is set, moved or taken away between windows holds for the next one."""
    subject = toy.trainer()
    clip = stage_of(subject, "clip")
    answer = {**FINITE, "grad_norm": torch.tensor(4.0), "norm": 4.0}
    found = []

    for max_norm in (None, 5.0, 3.0, None):
        clip.configure(toy.config(clip={"max_norm": max_norm}))
        for parameter in subject.parts.parameters:
            parameter.grad = torch.ones_like(parameter)
        found.append(clip(attempt_at("float32"), Script(answer)).clipped)

    assert found == [False, False, True, False]


def test_the_verdict_passes_through() -> None:
    """Clipping judges nothing."""
    _, bad = clipped(0.1, 1.0, **BAD_LOSS)
    _, good = clipped(0.1, 1.0)

    assert (bad.verdict, good.verdict) == (Verdict.NONFINITE, Verdict.FINITE)
