"""Policy: when the fallback limit is passed, where a dtype is raised to, and when a window is risky."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.amp import AMPConfig
from ampd.core.policy import Calm, FallbackBudget, raise_dtype
from ampd.core.precision import Capability, Precision

NATIVE_BF16 = Capability(device="new", native=(Precision.FLOAT16, Precision.BFLOAT16))
EMULATED_BF16 = Capability(device="old", native=(Precision.FLOAT16,), emulated=(Precision.BFLOAT16,))


@given(limit=st.integers(0, 20), used=st.integers(0, 25))
def test_the_limit_is_passed_by_the_window_after_it(limit: int, used: int) -> None:
    """A budget of N allows N fallbacks; the N+1st passes it."""
    budget = FallbackBudget()

    for _ in range(used):
        budget = budget.spend()

    assert budget.is_passed(AMPConfig(max_fp32_fallbacks=limit)) is (used > limit)


def test_the_limit_acts_once_an_epoch() -> None:
    """What was done about it is not done again, until a new epoch has used up its own budget."""
    amp = AMPConfig(max_fp32_fallbacks=0)
    acted = msgspec.structs.replace(FallbackBudget(epoch=1).spend(), acted=True)

    assert not acted.spend().is_passed(amp)
    assert not acted.enter(2).is_passed(amp)
    assert acted.enter(2).spend().is_passed(amp)


def test_an_epoch_keeps_its_count() -> None:
    """Entering the epoch that one is in changes nothing; a new one begins at zero."""
    budget = FallbackBudget(epoch=3).spend().spend()

    assert budget.enter(3) is budget
    assert budget.enter(4) == FallbackBudget(epoch=4)


def test_spending_leaves_the_old_budget_alone() -> None:
    """Budgets are values: a checkpoint that holds one never sees it change."""
    before = FallbackBudget(epoch=1)

    before.spend()

    assert before.used == 0


@pytest.mark.parametrize(
    ("precision", "capability", "raised"),
    [
        (Precision.FLOAT16, NATIVE_BF16, "bfloat16"),
        (Precision.FLOAT16, EMULATED_BF16, "float32"),
        (Precision.BFLOAT16, NATIVE_BF16, "float32"),
        (Precision.FLOAT32, NATIVE_BF16, "float32"),
    ],
)
def test_a_dtype_is_raised_to_what_the_device_does_natively(
    precision: Precision, capability: Capability, raised: str
) -> None:
    """Emulated bfloat16 is slower than float32, so it is never a refuge."""
    assert raise_dtype(precision, capability) == {"amp.dtype": raised}


def test_the_first_windows_are_risky() -> None:
    """After a start, so many windows are judged at once as `risky_windows` says."""
    amp = AMPConfig(risky_windows=3)
    calm, judged = Calm(risky_left=amp.risky_windows), []

    for _ in range(6):
        judged.append(calm.is_risky(amp))
        calm = calm.after(was_finite=True, amp=amp)

    assert judged == [True, True, True, False, False, False]


def test_trouble_makes_the_next_windows_risky() -> None:
    """A bad window starts the count again."""
    amp = AMPConfig(risky_windows=2)
    calm = Calm(risky_left=0).after(was_finite=False, amp=amp)

    assert calm.is_risky(amp)
    assert not calm.after(was_finite=True, amp=amp).after(was_finite=True, amp=amp).is_risky(amp)


def test_no_risky_windows_means_never() -> None:
    """`risky_windows = 0` defers every window, however bad the last one was."""
    amp = AMPConfig(risky_windows=0, growth_interval=1)
    calm = Calm(risky_left=5)

    assert not any(c.is_risky(amp) for c in (calm, calm.after(was_finite=False, amp=amp)))


def test_the_windows_after_a_growth_are_risky() -> None:
    """A scale that has just grown is what overflows most, so the windows after it are judged at once."""
    amp = AMPConfig(risky_windows=2, growth_interval=10)
    calm, risky = Calm(risky_left=0), []

    for number in range(25):
        if calm.is_risky(amp):
            risky.append(number)
        calm = calm.after(was_finite=True, amp=amp)

    assert {10, 20} <= set(risky)
    assert len(risky) <= 2 * 3
