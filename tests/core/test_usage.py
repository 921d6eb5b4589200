"""What ranks used up: added over their processes, kept by rank."""

from __future__ import annotations

from ampd.core.observed import observe
from ampd.core.usage import Usage, together
from tests.telemetry import views


def test_a_rank_goes_on_from_what_its_last_process_used() -> None:
    """A counter that began anew with each worker would be a reset, and a rate over it wrong."""
    before = {0: Usage(allocator_retries=3, shortages=1)}
    since = {0: Usage(allocator_retries=4, shortages=2)}

    assert together(before, since) == {0: Usage(allocator_retries=7, shortages=3)}


def test_a_rank_that_is_gone_or_new_stands_for_itself() -> None:
    """A group may come back with fewer ranks, or with more."""
    before, since = {0: Usage(), 2: Usage(allocator_retries=1)}, {0: Usage(), 1: Usage(allocator_retries=5)}

    assert together(before, since) == {
        0: Usage(),
        2: Usage(allocator_retries=1),
        1: Usage(allocator_retries=5),
    }


def test_a_new_worker_makes_the_last_ones_usage_the_past() -> None:
    """For every rank of it, not only for the first."""
    view = views.running(snapshots={})
    for rank, retries in ((0, 2), (1, 5)):
        observe(view, rank, views.snapshot(rank=rank, usage=Usage(allocator_retries=retries)), 1.0)

    observe(view, 0, views.ready(), 2.0)
    observe(view, 1, views.snapshot(rank=1, usage=Usage(allocator_retries=1)), 3.0)

    assert view.usage == {0: Usage(allocator_retries=2), 1: Usage(allocator_retries=6)}
