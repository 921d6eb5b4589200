"""The loss scale: two tensors on the device and the arithmetic that moves them. No host sync.

The rule is that of torch.amp.GradScaler (`_amp_update_scale_`): times backoff on a bad window, times growth after
`growth_interval` good ones in a row. On top of it a floor, a ceiling and hysteresis, because without a floor 144 bad
windows make 1/scale infinite, and the next good window then writes inf into every weight. All factors are arguments
of the update, so all are live. Hysteresis counts bad windows since the scale last backed off; tolerance is the share of
bad windows since then that a scale survives. GradScaler itself is not used: it has no floor, hides whether a step was
skipped, and reads the flag on the host once per optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ampd.core.amp import AMPConfig


class LossScale:
    """A scale with its growth tracker; `value` is a one-element float32 tensor on the device."""

    def __init__(self, initial: float, device: torch.device) -> None:
        self.initial = initial
        self._interval = 0
        self.value = torch.full((1,), initial, dtype=torch.float32, device=device)
        self._growth_tracker = torch.zeros(1, dtype=torch.int32, device=device)
        self._strikes = torch.zeros(1, dtype=torch.int32, device=device)
        self._since = torch.zeros(1, dtype=torch.int32, device=device)

    def unscale(self, gradients: Sequence[Tensor]) -> Tensor:
        """Divide gradients by the scale in place; returns a (1,) float32 flag, 1 where one was not finite."""
        found = torch.zeros(1, dtype=torch.float32, device=self.value.device)
        inverse = self.value.double().reciprocal().float()  # in double, as GradScaler does
        torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), found, inverse)
        return found

    def update(self, found: Tensor, amp: AMPConfig) -> None:
        """Move the scale after a window; `found` is a (1,) float32 flag, exactly 0 or 1."""
        if (
            amp.growth_interval != self._interval
        ):  # the kernel compares by ==: a tracker past it would never grow
            self._growth_tracker.clamp_(max=amp.growth_interval - 1)
            self._interval = amp.growth_interval
        is_plain = amp.hysteresis == 1 and amp.overflow_tolerance == 0
        backs_off = found if is_plain else self._strike(found, amp)
        torch._amp_update_scale_(
            self.value,
            self._growth_tracker,
            backs_off,
            amp.growth_factor,
            amp.backoff_factor,
            amp.growth_interval,
        )
        self.clamp(amp)

    def clamp(self, amp: AMPConfig) -> None:
        """Hold the scale between its floor and its ceiling."""
        self.value.clamp_(amp.min_scale, amp.max_scale)

    def reset(self) -> None:
        """Back to the initial scale, with no history."""
        self.value.fill_(self.initial)
        self._growth_tracker.zero_()
        self._strikes.zero_()
        self._since.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Copies of the scale and its history."""
        return {
            "value": self.value.clone(),
            "growth_tracker": self._growth_tracker.clone(),
            "strikes": self._strikes.clone(),
            "since": self._since.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from a saved scale."""
        self.value.copy_(state["value"])
        self._growth_tracker.copy_(state["growth_tracker"])
        self._strikes.copy_(state["strikes"])
        self._since.copy_(state["since"])

    def _strike(self, found: Tensor, amp: AMPConfig) -> Tensor:
        """1 where this bad window is the one that backs the scale off; a window that only strikes stops growth."""
        bad = found.to(torch.int32)
        self._strikes.add_(bad)
        self._since.add_(1)
        too_many = self._strikes > self._since * amp.overflow_tolerance
        backs_off = bad * (self._strikes >= amp.hysteresis) * too_many
        self._strikes.mul_(1 - backs_off)
        self._since.mul_(1 - backs_off)
        # The update below counts a window without back-off as good; -1 makes that a fresh start.
        self._growth_tracker.copy_(torch.where((bad - backs_off) == 1, -1, self._growth_tracker))
        return backs_off.to(torch.float32)
