"""A real Chromium for tests: the document and its console, and pictures of it; a visible skip without one.

Each run is a process of its own with an empty profile, without any service that would ask the network for something.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-default-apps",
    "--hide-scrollbars", "--enable-logging=stderr", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip

Theme = Literal["light", "dark"]
_TestT = TypeVar("_TestT", bound=Callable[..., object])


def needs_browser(test: _TestT) -> _TestT:
    """Mark a test that runs Chromium; it is skipped, and says so, where there is none."""
    marked: _TestT = pytest.mark.skipif(PROGRAM is None, reason="not installed: chromium")(test)
    return marked


def document(url: str, *flags: str, milliseconds: int = 2000) -> tuple[str, list[str]]:
    """The document as it is after a while, scripts run, and the lines of the browser's console."""
    done = _run(url, f"--timeout={milliseconds}", f"--virtual-time-budget={milliseconds}", "--dump-dom", *flags)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


def picture(url: str, to: Path, *, width: int, height: int, theme: Theme) -> Path:
    """A picture of the page in a window of this size, as a PNG."""
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    light = [] if theme == "dark" else ["--blink-settings=preferredColorScheme=1"]
    _run(url, f"--screenshot={to}", f"--window-size={width},{height}", "--timeout=3000", *dark, *light)
    assert to.is_file(), f"no picture of {url}"
    return to


def _run(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    assert PROGRAM is not None, "tests that come here are skipped without a browser"
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        command = [PROGRAM, *ARGUMENTS, f"--user-data-dir={profile}", *flags, url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
