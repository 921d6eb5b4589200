"""The section of the job file about processes that train together, and what follows from it."""

from __future__ import annotations

from typing import Annotated, Literal

from ampd.core.section import Section, fixed


class DistributedSection(Section, frozen=True, kw_only=True):
    processes: (
        Annotated[
            int,
            fixed(
                "Processes that train together, by torchrun; auto: one for each GPU, 1 without.",
                ge=1,
                le=1024,
            ),
        ]
        | Literal["auto"]
    ) = 1
