"""Which ranks have other weights than the rest: told from sums of bits. Real groups are in tests/distributed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ampd.engine.ranks import Alone
from ampd.engine.replicas import Odd, compare, digest_of, odd_of, sums_of

Weights = dict[str, Tensor]


def weights(**changed: float) -> Weights:
    """Two parameters, some with another first number."""
    made = {"a": torch.ones(3, 2), "b": torch.ones(4)}
    for name, value in changed.items():
        made[name].view(-1)[0] = value
    return made


def odd(*ranks: Weights) -> Odd:
    """What is said of ranks with these weights, which are not all alike."""
    return odd_of(list(ranks[0]), [sums_of(each.values()).tolist() for each in ranks])


def test_one_process_is_like_itself() -> None:
    """Nobody is odd."""
    assert compare(weights(), Alone()) is None


def test_the_rank_that_is_unlike_most_is_named() -> None:
    """Rank 0 too, where two others agree; with the first parameter that differs."""
    assert odd(weights(), weights(b=2.0), weights()) == Odd(ranks=(1,), parameter="b")
    assert odd(weights(a=2.0), weights(), weights()) == Odd(ranks=(0,), parameter="a")
    assert odd(weights(a=2.0, b=3.0), weights(), weights(), weights(b=5.0)).ranks == (0, 3)


def test_of_two_ranks_the_second_is_named() -> None:
    """There is no majority; checkpoints are those of rank 0."""
    assert odd(weights(), weights(a=2.0)) == Odd(ranks=(1,), parameter="a")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_bit_is_enough(dtype: torch.dtype) -> None:
    """The least step that a number can take, in any precision."""
    one = torch.ones(4, dtype=dtype)
    next_to_one = one.clone()
    next_to_one[3] = 1 + torch.finfo(dtype).eps

    assert digest_of(sums_of([one])) != digest_of(sums_of([next_to_one]))


def test_minus_zero_is_not_zero() -> None:
    """Bits are compared, and not numbers."""
    assert digest_of(sums_of([torch.zeros(2)])) != digest_of(sums_of([-torch.zeros(2)]))


def test_what_is_not_a_number_is_like_itself() -> None:
    """Weights of which some are NaN are still the same on all ranks."""
    spoiled = torch.tensor([float("nan"), 1.0])

    assert digest_of(sums_of([spoiled])) == digest_of(sums_of([spoiled.clone()]))


def test_tensors_that_change_places_differ() -> None:
    """Their sums are the same two numbers."""
    first, second = torch.ones(2), torch.full((2,), 2.0)

    assert digest_of(sums_of([first, second])) != digest_of(sums_of([second, first]))


def test_a_tensor_that_does_not_lie_in_one_piece_is_taken_as_it_reads() -> None:
    """A transposed weight has the same bits."""
    weight = torch.arange(6.0).reshape(2, 3)

    assert sums_of([weight.t()]).tolist() == sums_of([weight]).tolist()
