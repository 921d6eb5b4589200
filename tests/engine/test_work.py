"""How long a rank works by itself: what is counted, and what is not."""

from __future__ import annotations

import time

import torch

from ampd.engine.work import HostWork, work_on


def busy(seconds: float) -> None:
    """Work on the host for at least so long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_work_is_counted_from_where_it_begins() -> None:
    """Not what was before, nor after its end."""
    work, begun = HostWork(), time.perf_counter()
    work.begin()
    busy(0.01)
    work.end()
    outer = time.perf_counter() - begun
    busy(0.01)

    assert 0.01 <= work.seconds <= outer


def test_what_has_not_begun_cannot_end() -> None:
    """Replays of a window send gradients without an agreement before them."""
    work = HostWork()
    work.end()
    work.begin()
    work.end()
    known = work.seconds
    work.end()

    assert work.seconds == known


def test_a_new_beginning_forgets_the_old() -> None:
    """A pause lies between the two."""
    work = HostWork()
    work.begin()
    busy(0.02)
    begun = time.perf_counter()
    work.begin()
    work.end()

    assert work.seconds <= time.perf_counter() - begun


def test_the_clock_is_that_of_the_device() -> None:
    """On the CPU the process's own."""
    assert isinstance(work_on(torch.device("cpu")), HostWork)
