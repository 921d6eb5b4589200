"""What holds for every test: how hypothesis looks for counterexamples, and seeds that a failure shows.

Torch is not loaded here: most of the suite never needs it.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadline, because no test asserts timings and the machine is shared; the blob repeats a failure anywhere.
settings.register_profile("ampd", deadline=None, print_blob=True, max_examples=50)
settings.register_profile("campaign", parent=settings.get_profile("ampd"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ampd"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> Iterator[int]:
    """A fresh seed, printed with a failure; AMPD_TEST_SEED repeats one."""
    value = int(os.environ.get("AMPD_TEST_SEED", random.SystemRandom().randrange(2**31)))
    request.node.user_properties.append(("seed", value))
    print(f"seed: {value} (repeat with AMPD_TEST_SEED={value})", file=sys.stderr)
    yield value
