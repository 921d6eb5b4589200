"""The learning rate as a pure function of applied updates.

A window that was skipped never advances it, and a resumed job needs no scheduler state. Warm-up is linear from
lr/warmup to lr; the cosine is that of Loshchilov and Hutter (SGDR, 2017) without restarts.
"""

from __future__ import annotations

import math

from ampd.core.config import OptimSection


def learning_rate(optim: OptimSection, applied: int, total: int) -> float:
    """The rate of the update that comes after `applied` updates, of `total` in the whole job."""
    if applied < optim.warmup_windows:
        return optim.lr * (applied + 1) / optim.warmup_windows
    if optim.schedule == "constant":
        return optim.lr
    decay = max(1, total - optim.warmup_windows)
    progress = min(1.0, (applied - optim.warmup_windows) / decay)
    floor = optim.lr * optim.min_lr_ratio
    return floor + (optim.lr - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
