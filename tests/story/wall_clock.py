"""A wall clock of their own for some processes, which steps while they run; needs a C compiler."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="needs a C compiler (Debian: gcc, libc6-dev)"
)
_SOURCE = Path(__file__).with_suffix(".c")


class WallClock:
    """What whoever is started with `environment` takes for the time; `home` holds what that needs."""

    def __init__(self, home: Path) -> None:
        library, ahead = home / "wall_clock.so", home / "ahead"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE)], check=True)
        ahead.write_bytes(bytes(8))
        self._ahead = ahead
        self.environment = {"LD_PRELOAD": str(library), "AMPD_TEST_WALL_CLOCK": str(ahead)}

    def step(self, seconds: int) -> None:
        """Be so far ahead of the real one (or behind, below 0) from this moment on."""
        file = os.open(self._ahead, os.O_WRONLY)
        try:
            os.pwrite(file, struct.pack("q", seconds), 0)
        finally:
            os.close(file)
