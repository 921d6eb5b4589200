"""The promise of the product: a window that fell back equals that window run in float32 from the start, bit for bit."""

from __future__ import annotations

import pytest

from ampd.core import messages as m
from tests.engine import toy

PRECISIONS = ["float16", "bfloat16"]


def test_fallback_equals_float32_from_the_start() -> None:
    """Windows that overflow in float16 end as if they had been float32, with dropout, BatchNorm and accumulation."""
    clip = {"max_norm": 0.5}
    every: dict[int, m.Fault] = dict.fromkeys(range(6), "overflow")

    fell = toy.trainer(amp={"dtype": "float16"}, clip=clip)
    records = toy.run(fell, range(6), every)
    straight = toy.trainer(amp={"dtype": "float32"}, clip=clip)
    toy.run(straight, range(6), every)

    assert [r.precision for r in records] == ["float32"] * 6
    assert all(r.clipped for r in records)
    assert toy.state_bytes(fell) == toy.state_bytes(straight)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_skipped_window_leaves_no_trace(dtype: str) -> None:
    """A window that is bad at every precision changes neither weights nor buffers nor optimizer state."""
    subject = toy.trainer(amp={"dtype": dtype})
    toy.run(subject, range(2))
    before = toy.state_bytes(subject)

    (record,) = toy.run(subject, range(2, 3), {2: "nan-loss"})

    assert record.skipped == "model"
    assert toy.state_bytes(subject) == before


def test_bad_float32_window_leaves_no_trace() -> None:
    """The guard is the same where there is nothing wider to fall back to."""
    subject = toy.trainer(amp={"dtype": "float32"})
    toy.run(subject, range(2))
    before = toy.state_bytes(subject)

    records = toy.run(subject, range(2, 4), {2: "nan-grad", 3: "nan-loss"})

    assert [r.skipped for r in records] == ["model", "model"]
    assert [r.replays for r in records] == [(), ()]
    assert toy.state_bytes(subject) == before
