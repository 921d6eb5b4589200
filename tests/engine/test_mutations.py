"""The tests of the guard notice when a part of it is gone: each protection is taken out, and a named test must fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def failed() -> dict[str, str]:
    """The tests that failed under their mutation, with the error; all of them in one process, to load torch once."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.engine.mutations", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [*command, "-rf", "--tb=line", *(mutation.node for mutation in MUTATIONS)],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "400"},
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return dict(re.findall(r"^FAILED (\S+) - (.*)$", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_missing_protection_is_noticed(mutation: Mutation, failed: dict[str, str]) -> None:
    """The named test fails, by an assertion of its own and not by accident."""
    assert failed[mutation.node].startswith(("assert", "AssertionError", "ExceptionGroup: Hypothesis"))
