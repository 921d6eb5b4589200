"""What a rank trains on, told with its figures, since the ranks of a job need not be on the same."""

from __future__ import annotations

import msgspec


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """As driver and kernel name it; "" where there is nothing to tell. `capability` is CUDA's, or what torch uses of a processor."""

    name: str = ""
    capability: str = ""
    driver: str = ""
    memory_bytes: int = 0
