"""The feed: all windows of a job in order from any number on, built in the loop's thread or ahead of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ampd.engine.feed import Feed
from ampd.engine.window import MicroBatch, Window
from ampd.errors import WorkloadError
from tests.engine import toy


class Source:
    """A workload whose windows say where they come from; `lengths` are windows an epoch really yields."""

    def __init__(self, windows_per_epoch: int = 4, lengths: dict[int, int] | None = None) -> None:
        self.model: torch.nn.Module = torch.nn.Linear(1, 1)
        self.windows_per_epoch = windows_per_epoch
        self.asked: list[tuple[int, int]] = []
        self._lengths = lengths or {}

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        """Windows that hold their own epoch and position."""
        self.asked.append((epoch, start))
        for position in range(start, self._lengths.get(epoch, self.windows_per_epoch)):
            yield (MicroBatch(tensors={"at": torch.tensor([epoch, position])}, samples=1),)

    def loss(self, micro_batch: MicroBatch) -> torch.Tensor:
        """Never called."""
        raise AssertionError


def place_of(window: Window) -> tuple[int, int, list[int]]:
    """A window's number and epoch, and what it holds."""
    return window.number, window.epoch, window.micro_batches[0].tensors["at"].tolist()


@pytest.mark.parametrize("ahead", [0, 2])
def test_windows_come_in_order_over_epochs(ahead: int) -> None:
    """Numbered over the whole job, an epoch after the other."""
    feed = Feed(Source(3), 0, ahead=ahead)

    places = [place_of(next(feed)) for _ in range(7)]
    feed.close()

    assert places == [(n, n // 3, [n // 3, n % 3]) for n in range(7)]


@given(start=st.integers(0, 40), size=st.integers(1, 9))
def test_any_window_can_be_the_first(start: int, size: int) -> None:
    """A resume gets what a run from the beginning would have got there, and asks for nothing before it."""
    source = Source(size)

    feed = Feed(source, start)
    place = place_of(next(feed))
    feed.close()

    assert place == (start, start // size, [start // size, start % size])
    assert source.asked == [(start // size, start % size)]


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_epoch_that_is_too_short_is_an_error(ahead: int) -> None:
    """The workload promised more windows: it is named where the windows are taken, whichever thread built them."""
    feed = Feed(Source(4, lengths={1: 2}), 0, ahead=ahead)
    for _ in range(6):
        next(feed)

    with pytest.raises(WorkloadError, match="epoch 1 ended after 2 windows, windows_per_epoch says 4"):
        next(feed)
    feed.close()


def test_more_than_was_promised_is_left_out() -> None:
    """`windows_per_epoch` is what the position of a resume counts by."""
    feed = Feed(Source(2, lengths={0: 5}), 0)

    assert [next(feed).epoch for _ in range(4)] == [0, 0, 1, 1]
    feed.close()


def test_a_window_without_micro_batches_is_an_error() -> None:
    """There is nothing to train on in it."""

    class Empty(Source):
        def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
            yield ()

    feed = Feed(Empty(), 0)

    with pytest.raises(WorkloadError, match="at least one micro-batch"):
        next(feed)
    feed.close()


def test_closing_ends_the_thread() -> None:
    """Also while it waits for room, with nobody taking windows any more."""
    feed = Feed(Source(), 0, ahead=2)
    next(feed)

    feed.close()

    assert "ampd-feed" not in [thread.name for thread in threading.enumerate()]


def test_no_thread_where_nothing_is_built_ahead() -> None:
    """On the CPU the loop builds windows itself."""
    feed = Feed(Source(), 0)

    assert "ampd-feed" not in [thread.name for thread in threading.enumerate()]
    feed.close()


def test_micro_batches_count_for_their_window() -> None:
    """Samples and tokens of a window are those of all its micro-batches."""
    micro_batches = tuple(MicroBatch(tensors={}, samples=n, tokens=10 * n) for n in (1, 2, 3))
    window = Window(number=0, epoch=0, micro_batches=micro_batches)

    assert (window.samples, window.tokens) == (6, 60)


def test_moving_a_micro_batch_keeps_its_counts() -> None:
    """On the device it is the same micro-batch."""
    micro_batch = toy.window(0).micro_batches[0]

    moved = micro_batch.to(torch.device("meta"))

    assert (moved.samples, moved.tokens) == (micro_batch.samples, micro_batch.tokens)
    assert {t.device.type for t in moved.tensors.values()} == {"meta"}
    assert {t.device.type for t in micro_batch.tensors.values()} == {"cpu"}


@pytest.mark.parametrize(
    ("yielded", "given"),
    [
        (MicroBatch(tensors={}, samples=1), "MicroBatch"),
        ("text", "str"),
        ((torch.ones(1), torch.ones(1)), r"tuple\['Tensor'\]"),
    ],
)
def test_what_is_no_window_is_named(yielded: object, given: str) -> None:
    """The first mistake of a new workload, and its author reads what to yield instead."""

    class Wrong(Source):
        def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
            yield yielded  # type: ignore[misc]  # wrong on purpose

    with pytest.raises(
        WorkloadError, match=f"window 0 of epoch 0 is of type {given}; .* tuples of MicroBatch"
    ):
        next(Feed(Wrong(), 0))
