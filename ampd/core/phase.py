"""What a worker is doing, as it declares it: each phase has its own idea of how long nothing may be heard.

A pulse is the last declaration and the number of declarations so far. A worker declares `window` before each window,
so a moved number is progress; what takes long by nature (loading, a first window, an evaluation) is declared by name
before it begins.
"""

from __future__ import annotations

import enum

import msgspec


class Phase(enum.StrEnum):
    """What takes the time; the value is what `ampctl status` prints."""

    INIT = "init"  # torch, model and checkpoint are loaded
    COMPILE = (
        "compile"  # the first window of a worker or after a change, in which kernels are built and tuned
    )
    WINDOW = "window"  # from one boundary to the next, data included
    CHECKPOINT = "checkpoint"  # the state is copied, or the last one waited for
    EVALUATION = "evaluation"
    PAUSED = "paused"  # declared again with every look for orders


LONG = (Phase.COMPILE, Phase.CHECKPOINT, Phase.EVALUATION)
"""Phases in which a loop that runs or is paused may say nothing for minutes; `[watchdog]` bounds them."""


class Pulse(msgspec.Struct, frozen=True):
    """The last phase that was declared, how many were since the worker started, and whether it waits for other ranks."""

    phase: Phase = Phase.INIT
    beats: int = 0
    is_waiting: bool = False


class Standing(msgspec.Struct, frozen=True):
    """How long a rank has declared nothing new, and how long it may; a budget of None is without limit."""

    phase: Phase
    seconds: float
    budget_seconds: float | None
    rank: int = 0
    """Of those on this node."""
    is_waiting: bool = False
    """For other ranks, so that what holds it up is not its own."""

    @property
    def is_overdue(self) -> bool:
        """Whether it hangs, as far as can be known from outside."""
        return self.budget_seconds is not None and self.seconds > self.budget_seconds
