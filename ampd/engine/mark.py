"""A point that a window can be rewound to; `Rewind` makes and restores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mark:
    """Copies of the buffers (flat, one per dtype and device), the generators, and the workload's own state.

    `generators` is empty where no replay can follow.
    """

    buffers: tuple[Tensor, ...]
    generators: Mapping[str, Any]
    workload: Mapping[str, Any] | None
