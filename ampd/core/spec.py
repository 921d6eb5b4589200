"""What a plugin's entry point names: a description that loads no torch.

The supervisor, `ampd check` and `ampd plugins` read specs to validate a job file whole; `build` is a reference,
"package.module:attribute", resolved in the worker only.
"""

from __future__ import annotations

import enum

import msgspec


class Slot(enum.IntEnum):
    """Where a stage sits in the step, outermost first; RECOVER, SCALE and CAST take exactly one stage."""

    OBSERVE = 0
    SHAPE = 1
    RECOVER = 2
    SCALE = 3
    CAST = 4

    @property
    def is_single(self) -> bool:
        """True where a pipeline has exactly one stage in this slot."""
        return self in (Slot.RECOVER, Slot.SCALE, Slot.CAST)


class NoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For plugins without options of their own."""


class StageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A stage: its slot, its options, and `build(options, StageContext) -> Stage`."""

    slot: Slot
    build: str
    summary: str
    options: type[msgspec.Struct] = NoOptions


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A workload: its options, and `build(options, WorkloadContext) -> Workload`.

    `host_rng` says that its loss draws from Python's or NumPy's generators too, which are then rewound as well.
    `check(options)` may raise ConfigError for what types cannot say (an unreadable file); it must not load torch.
    """

    build: str
    summary: str
    options: type[msgspec.Struct] = NoOptions
    host_rng: bool = False
    check: str = ""
