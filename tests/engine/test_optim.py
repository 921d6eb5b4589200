"""The daemon's optimizer: which parameters decay, fused by default, and rates that are live."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim

from ampd.core.config import OptimSection
from ampd.engine.optim import build_optimizer, can_be_gated, gated_step, set_rates
from tests.engine import toy


def built(model: nn.Module | None = None, **section: Any) -> tuple[optim.Optimizer, OptimSection]:
    """The optimizer of a section of the job file, and the section."""
    chosen = toy.config(optim=section).optim
    return build_optimizer(chosen, (model or toy.Toy().model).parameters()), chosen


def decays(optimizer: optim.Optimizer) -> dict[int, float]:
    """Weight decay by the parameter's number of dimensions."""
    return {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_matrices_decay_and_vectors_do_not(name: str) -> None:
    """Biases and norms keep their size."""
    optimizer, _ = built(name=name, weight_decay=0.3)

    assert decays(optimizer) == {2: 0.3, 1: 0.0}


def test_the_settings_are_those_of_the_file() -> None:
    """Every key of the section reaches torch."""
    adamw, _ = built(name="adamw", lr=0.02, betas=[0.8, 0.9], eps=1e-6, fused=False)
    sgd, _ = built(name="sgd", lr=0.3, momentum=0.7)

    assert {k: adamw.defaults[k] for k in ("lr", "betas", "eps", "fused")} == {
        "lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-6, "fused": False,
    }  # fmt: skip
    assert (sgd.defaults["lr"], sgd.defaults["momentum"]) == (0.3, 0.7)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_default_is_fused(name: str) -> None:
    """So that the guard can gate it on the device."""
    assert can_be_gated(built(name=name)[0])
    assert not can_be_gated(built(name=name, fused=False)[0])


def test_frozen_parameters_are_left_out() -> None:
    """A model that is trained in part has an optimizer for that part."""
    model = toy.Toy().model
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)

    optimizer, _ = built(model)

    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_model_of_vectors_has_one_group() -> None:
    """Torch refuses an empty group, so there is none."""
    optimizer, _ = built(nn.BatchNorm1d(3))

    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]


def test_the_rate_is_put_into_every_group() -> None:
    """A window's rate is one for all parameters."""
    optimizer, section = built()

    set_rates(optimizer, 0.125, section)

    assert {group["lr"] for group in optimizer.param_groups} == {0.125}


def test_weight_decay_is_live_where_there_is_some() -> None:
    """A change reaches matrices, and never vectors."""
    optimizer, _ = built(weight_decay=0.3)

    set_rates(optimizer, 0.1, toy.config(optim={"weight_decay": 0.05}).optim)

    assert decays(optimizer) == {2: 0.05, 1: 0.0}


@pytest.mark.parametrize("before", [[0.0], [0.3, 0.0]])
def test_weight_decay_can_be_raised_from_zero(before: list[float]) -> None:
    """Zero is a value like any other: what was switched off can be switched on."""
    optimizer, _ = built(weight_decay=before[0])

    for decay in (*before[1:], 0.2):
        set_rates(optimizer, 0.1, toy.config(optim={"weight_decay": decay}).optim)

    assert decays(optimizer) == {2: 0.2, 1: 0.0}


def stepped(name: str, flags: list[float | None]) -> dict[str, Any]:
    """Weights and state after steps that were gated by these flags; None is a plain step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer, _ = built(model, name=name, lr=0.1)
    for flag in flags:
        bad = flag == 1.0
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float("nan") if bad else 0.5)
        if flag is None:
            optimizer.step()
        else:
            gated_step(optimizer, torch.tensor([flag]))
    state = optimizer.state_dict()["state"]
    return {"weights": [p.tolist() for p in model.parameters()], "state": repr(state)}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_gated_step_is_a_plain_step_or_none(name: str) -> None:
    """With the flag at 0 it is the plain step bit for bit; at 1 it leaves weights, moments and counter alone."""
    assert stepped(name, [None, 0.0, 1.0, 0.0, 1.0]) == stepped(name, [None, None, None])


def test_a_gate_is_for_one_step() -> None:
    """The flag of a window is gone when the next one is committed."""
    optimizer, _ = built()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)

    gated_step(optimizer, torch.ones(1))

    assert not hasattr(optimizer, "found_inf")
    assert not hasattr(optimizer, "grad_scale")
