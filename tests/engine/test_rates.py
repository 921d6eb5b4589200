"""Whose learning rate it is: a job's schedule is written into the optimizer, a loop's own rates are only read."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

from ampd.core.config import OptimSection
from ampd.engine.optim import build_optimizer
from ampd.engine.rates import OwnRates, Schedule

SECTION = OptimSection(lr=1.0, schedule="constant", weight_decay=0.1, warmup_windows=2)


def optimizer(lr: float | torch.Tensor = 0.5) -> optim.Optimizer:
    """An optimizer over one parameter, with a rate and a decay that are not the section's."""
    return optim.AdamW([nn.Parameter(torch.ones(1))], lr=lr, weight_decay=0.7)


def test_a_schedule_writes_rate_and_decay() -> None:
    """The daemon's optimizer has no other source of them; vectors never decay."""
    rates, subject = Schedule(total_windows=10), build_optimizer(SECTION, nn.Linear(2, 2).parameters())

    rates.put(subject, rates.after(0, SECTION), SECTION)

    assert [(group["lr"], group["weight_decay"]) for group in subject.param_groups] == [
        (0.5, 0.1),
        (0.5, 0.0),
    ]
    assert rates.after(5, SECTION) == 1.0


def test_own_rates_are_read_and_never_written() -> None:
    """Whatever the section says, the groups stay as the loop's scheduler left them."""
    subject = optimizer()
    rates = OwnRates(subject)

    rates.put(subject, 0.9, SECTION)

    assert [(group["lr"], group["weight_decay"]) for group in subject.param_groups] == [(0.5, 0.7)]
    assert rates.after(0, SECTION) == 0.5


def test_a_rate_that_is_a_tensor_is_read_as_a_number() -> None:
    """`capturable` optimizers keep it on the device."""
    assert OwnRates(optimizer(torch.tensor(0.25))).after(3, SECTION) == pytest.approx(0.25)
