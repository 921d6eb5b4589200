"""A point that a window can be rewound to; `Rewind` makes and restores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from torch import Tensor


class Mark(msgspec.Struct, frozen=True):
    """Copies of the buffers (flat, one per dtype and device), the generators, and the workload's own state.

    `generators` is empty where no replay can follow.
    """

    buffers: tuple[Tensor, ...]
    generators: Mapping[str, Any]
    workload: Mapping[str, Any] | None
