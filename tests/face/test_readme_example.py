"""The example under "In your own loop" in README.md is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.tree import ROOT


def example() -> str:
    """The first Python block under the heading."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^#+ In your own loop\n.*?^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found is not None, 'README.md has no Python block under the heading "In your own loop"'
    return found.group(1)


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    """As a program of its own; the loop by hand and the one under training_step both learn."""
    done = subprocess.run(
        [sys.executable, "-c", example()], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"AMPD_RUNTIME_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "'total_steps': 200" in done.stdout
