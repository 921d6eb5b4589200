"""Workers that hang in one of four ways at random windows, between slow phases that they declared.

Each hang is told within a second of its budget; first windows (as those of a model that is compiled) and evaluations that
are longer than the budget of a window are left alone; and the loss log is that of a run that never hung.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter

from tests.story import hangs
from tests.story.hanging_worker import HANGS
from tests.story.jobs import digits_job

NAME = "hangs"
COUNT = 1
_MOST_WINDOWS = 30
_PATIENCE_SECONDS = 1800.0


def case(seed: int, count: int = COUNT) -> None:
    """One job that hangs so often, each kind as often as another; print what was measured."""
    draw = random.Random(seed)
    kinds = [kind for _ in range(count) for kind in draw.sample(sorted(HANGS), len(HANGS))][:count]
    words = [f"{kind}@{draw.randint(5, _MOST_WINDOWS)}" for kind in kinds]
    windows = _MOST_WINDOWS * (count + 2)
    with digits_job(windows) as job, digits_job(windows) as whole:
        hangs.write(job)
        seconds = int(hangs.BUDGET_SECONDS) + 1
        daemon = hangs.start(job, hang=words, slow=[f"evaluation@{seconds}", f"compile@{seconds}"])
        assert daemon.ends(_PATIENCE_SECONDS) == 0, daemon.err.read_text()
        late = hangs.lateness(job, daemon)
        assert len(late) == count, f"{len(late)} of {words} were met"
        assert max(late) <= hangs.LATE_SECONDS, f"told {max(late):.2f} s after its budget: {words}, {late}"
        starts, evaluations = len(daemon.said("worker.started")), len(daemon.said("job.evaluated"))
        assert starts == count + 1, "a slow phase was taken for a hang"
        hangs.check_exact(job, whole)
    print(
        f"{NAME}: {dict(Counter(kinds))}: told {min(late):.2f} to {max(late):.2f} s after the budget"
        f" (median {statistics.median(late):.2f}); {starts} slow first windows and {evaluations} slow evaluations"
        " left alone, exact"
    )
