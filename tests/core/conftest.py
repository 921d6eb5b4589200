"""Benches whose laws are checked once more when a test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.core.bench import Bench


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    """Makes benches; each must hold all laws when the test ends."""
    made: list[Bench] = []

    def make(*args: Any, **kwargs: Any) -> Bench:
        made.append(Bench(*args, **kwargs))
        return made[-1]

    yield make
    for bench in made:
        bench.check([])
        bench.check_end()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A daemon that has just begun."""
    return make_bench()
