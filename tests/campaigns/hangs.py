"""A worker that hangs in one of four ways at a random window, between slow phases that it declared.

Each case is one job with one hang and two evaluations that are longer than the budget of a window: the hang is told
within a second of its budget, the evaluations are left alone, and the loss log is that of a run that never hung.
"""

from __future__ import annotations

import random

from tests.story import hangs
from tests.story.hanging_worker import HANGS
from tests.story.jobs import digits_job

NAME = "hangs"
_WINDOWS = 80


def case(seed: int) -> None:
    """Hang once, somewhere; print what was measured."""
    draw = random.Random(seed)
    kind, at = draw.choice(sorted(HANGS)), draw.randint(10, _WINDOWS - 10)
    micro_batch = at if kind == "loader" else 2 * at
    with digits_job(windows=_WINDOWS) as job, digits_job(windows=_WINDOWS) as whole:
        hangs.write(job)
        slow = f"evaluation@{int(hangs.BUDGET_SECONDS) + 1}"
        daemon = hangs.start(job, hang=[f"{kind}@{micro_batch}"], slow=[slow])
        assert daemon.ends(120) == 0, daemon.err.read_text()
        (late,) = hangs.lateness(job, daemon)
        assert late <= hangs.LATE_SECONDS, f"{kind} was told {late:.2f} s after its budget"
        assert len(daemon.said("worker.started")) == 2, "a slow phase was taken for a hang"
        hangs.check_exact(job, whole)
    print(f"{NAME}: {kind} in window {at}: told {late:.2f} s after its budget, 0 false kills, exact")
