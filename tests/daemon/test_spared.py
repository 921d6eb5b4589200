"""A daemon's garbage collector looks at what comes and goes, and not at what was loaded."""

from __future__ import annotations

import subprocess
import sys

COUNT = """
import gc
from ampd import daemon, ports
before = len(gc.get_objects())
ports.spare_loaded()
print(before, gc.get_freeze_count(), len(gc.get_objects()))
"""


def test_what_was_loaded_is_never_looked_at_again() -> None:
    """A full collection over it would hold up whoever asks for tens of milliseconds."""
    said = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, timeout=60, check=True
    )
    loaded, spared, left = map(int, said.stdout.split())

    assert spared > 0.8 * loaded
    assert left < 0.05 * loaded
