"""What live changes have made of the job file, as the loop of rank 0 has it; part of every checkpoint."""

from __future__ import annotations

from typing import Any

import msgspec

from ampd.core.ledger import Cause
from ampd.core.policy import FallbackBudget


class Live(msgspec.Struct, kw_only=True):
    """Revision and number of the last action, the overlay over the job file, and what policy remembers."""

    revision: int = 1
    seq: int = 0
    overrides: dict[str, Any] = {}
    budget: FallbackBudget = FallbackBudget()
    avoid: Cause | None = None
