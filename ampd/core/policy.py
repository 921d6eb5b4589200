"""What a job does about trouble that lasts: history in, decision out.

Decided in rank 0's loop, at window boundaries, from the ledger alone; the loop carries decisions out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ampd.core.amp import AMPConfig
from ampd.core.orders import Action, Configure
from ampd.core.precision import Capability, Precision


class FallbackBudget(msgspec.Struct, frozen=True, kw_only=True):
    """Windows of `epoch` that fell back to float32; `acted` once the limit's action was taken in it."""

    epoch: int = 0
    used: int = 0
    acted: bool = False

    def enter(self, epoch: int) -> FallbackBudget:
        """The budget in `epoch`: a fresh one where that has just begun."""
        return self if epoch == self.epoch else FallbackBudget(epoch=epoch)

    def spend(self) -> FallbackBudget:
        """One more window fell back."""
        return msgspec.structs.replace(self, used=self.used + 1)

    def is_passed(self, amp: AMPConfig) -> bool:
        """More windows than `max_fp32_fallbacks`, and nothing done about it in this epoch yet."""
        return not self.acted and self.used > amp.max_fp32_fallbacks


def raise_dtype(precision: Precision, capability: Capability) -> dict[str, Any]:
    """The change that takes first attempts one precision wider, where the device does that natively."""
    if precision is Precision.FLOAT16 and Precision.BFLOAT16 in capability.native:
        return {"amp.dtype": Precision.BFLOAT16.value}
    return {"amp.dtype": Precision.FLOAT32.value}


def moves_dtype(action: Action) -> bool:
    """Whether an action of the journal is a change of the precision."""
    return isinstance(action, Configure) and "amp.dtype" in action.changes


class Calm(msgspec.Struct, frozen=True, kw_only=True):
    """How risky the next window is, for `amp.replay = "adaptive"`: calm windows are judged one window later.

    A window is risky for a while after start, a change and any trouble, and after the scale grew. A resumed run takes up
    its saved state instead of starting anew, or it would settle windows in another order than a run never stopped.
    The host knows a verdict one window late, so growth is expected from the count of good windows, not observed.
    """

    risky_left: int
    good_in_row: int = 0

    def after(self, *, was_finite: bool, amp: AMPConfig) -> Calm:
        """What is known once a window's verdict is."""
        if not was_finite:
            return Calm(risky_left=amp.risky_windows)
        return Calm(risky_left=max(0, self.risky_left - 1), good_in_row=self.good_in_row + 1)

    def is_risky(self, amp: AMPConfig) -> bool:
        """Whether to judge the next window at once; `risky_windows = 0` never does."""
        since_growth = (self.good_in_row + 1) % amp.growth_interval
        grew = self.good_in_row + 1 >= amp.growth_interval and since_growth <= min(
            amp.risky_windows, amp.growth_interval - 1
        )
        return amp.risky_windows > 0 and (self.risky_left > 0 or grew)
