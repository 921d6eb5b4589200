"""The laws that the windows of every workload keep: pure in (epoch, position), each sample once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
import torch
from ampd_bytegpt.spec import Options
from ampd_bytegpt.text import load

from ampd.errors import ConfigError
from ampd.sdk import MicroBatch
from tests.plugins.jobs import NAMES, Both, built

Windows = Iterable[tuple[MicroBatch, ...]]


def flat(windows: Windows) -> list[torch.Tensor]:
    """Every tensor of every micro-batch, in order."""
    return [tensor for window in windows for micro_batch in window for tensor in micro_batch.tensors.values()]


def same(left: Windows, right: Windows) -> bool:
    """True where both hold the same bytes in the same order."""
    pairs = itertools.zip_longest(flat(left), flat(right))
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


@pytest.fixture(params=NAMES)
def workload(request: pytest.FixtureRequest) -> Both:
    """Each of the workloads, small."""
    name: str = request.param
    return built(name)


def test_windows_are_pure(workload: Both) -> None:
    """Asking again gives the same windows, whatever was asked for in between."""
    first = list(itertools.islice(workload.windows(1, 0), 3))
    list(itertools.islice(workload.windows(0, 5), 2))

    again = list(itertools.islice(workload.windows(1, 0), 3))

    assert same(first, again)


@pytest.mark.parametrize("start", [1, 17])
def test_an_epoch_can_be_entered_anywhere(workload: Both, start: int) -> None:
    """windows(e, k) goes on exactly where windows(e, 0) is after k windows."""
    walked = list(itertools.islice(workload.windows(2, 0), start, start + 2))

    entered = list(itertools.islice(workload.windows(2, start), 2))

    assert same(walked, entered)


def test_an_epoch_has_the_windows_that_it_says(workload: Both) -> None:
    """`windows_per_epoch` windows, none from their number on, each of accumulate micro-batches of the batch size."""
    windows = list(workload.windows(0, 0))

    assert len(windows) == workload.windows_per_epoch
    assert {tuple(m.samples for m in window) for window in windows} == {(4, 4)}
    assert list(workload.windows(0, workload.windows_per_epoch)) == []


def test_epochs_differ(workload: Both) -> None:
    """Another epoch has another order."""
    assert not same([next(workload.windows(0, 0))], [next(workload.windows(1, 0))])


@pytest.mark.parametrize("name", NAMES)
def test_the_order_follows_the_jobs_seed(name: str) -> None:
    """Another seed has another order, the same seed the same."""
    first = next(built(name, seed=1).windows(0, 0))

    assert same([first], [next(built(name, seed=1).windows(0, 0))])
    assert not same([first], [next(built(name, seed=2).windows(0, 0))])


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_chunk_of_an_epoch_comes_once(epoch: int) -> None:
    """bytegpt's samples tile the training text: none twice, and at most a window of them left out."""
    workload = built("bytegpt", context=512)
    train = load(Options(context=512)).train

    chunks = [bytes(row.tolist()) for tensor in flat(workload.windows(epoch, 0)) for row in tensor]
    starts = sorted(train.index(chunk) for chunk in chunks)

    assert len(set(starts)) == len(chunks) > len(train) / 512 - 8 - 2
    assert {start % 512 for start in starts} == {starts[0] % 512}


def test_the_grid_of_chunks_moves_from_epoch_to_epoch() -> None:
    """Bytes are met at other places of a chunk in other epochs."""
    workload, train = built("bytegpt"), load(Options()).train

    windows = [next(workload.windows(epoch, 0))[0].tensors["text"][0] for epoch in range(4)]

    assert len({train.index(bytes(text.tolist())) % 16 for text in windows}) == 4


def test_every_image_of_an_epoch_comes_at_most_once() -> None:
    """digits' samples are the training images; no image twice, and less than a window of them left out."""
    workload = built("digits", size=7, accumulate=1)

    images = [bytes(image.numpy()) for w in workload.windows(0, 0) for m in w for image in m.tensors["image"]]

    assert 1438 - 7 < len(images) <= 1438
    assert len(set(images)) == len(images)


def test_tokens_are_counted_in_bytes_predicted() -> None:
    """A micro-batch of 4 chunks of 16 + 1 bytes is 64 predictions."""
    micro_batch = next(built("bytegpt").windows(0, 0))[0]

    assert micro_batch.tokens == 64
    assert micro_batch.tensors["text"].dtype is torch.uint8


@pytest.mark.parametrize("name", NAMES)
def test_a_window_larger_than_the_data_is_refused(name: str) -> None:
    """A batch that no epoch can fill is an error of the job file."""
    with pytest.raises(ConfigError, match=r"batch\.size = 100000"):
        built(name, size=100_000)
