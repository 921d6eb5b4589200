"""A real Chromium for tests, driven over its debugging pipe; a visible skip where there is none.

    with Browser() as browser:
        browser.open(address, width=360, theme="dark")
        browser.waits_for("document.title === 'done'")
        browser.picture(path)

Each is a process of its own with an empty profile and without any service that would ask the network for something.
The pipe (JSON, each message ended by a NUL) needs no port and no websocket library.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-default-apps", "--no-proxy-server",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE_SECONDS = 60.0

Theme = Literal["light", "dark"]
_TestT = TypeVar("_TestT", bound=Callable[..., object])


def needs_browser(test: _TestT) -> _TestT:
    """Mark a test that runs Chromium; it is skipped, and says so, where there is none."""
    marked: _TestT = pytest.mark.skipif(PROGRAM is None, reason="not installed: chromium")(test)
    return marked


class Browser:
    """One Chromium with one tab; `requests` and `complaints` are what it asked for and what its console said."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._number = 0
        self._buffer = b""
        self._session: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [PROGRAM or "chromium", *ARGUMENTS, f"--user-data-dir={self._profile.name}"]
        # The browser reads its file 3 and writes its file 4; a shell puts them there.
        line = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, "chromium", *command], pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        attached = self.tell("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.tell(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def open(self, address: str, *, width: int = 1280, theme: Theme = "light", scripts: bool = True) -> None:
        """Load a page in a window of this width; returns when it is loaded."""
        media = [{"name": "prefers-color-scheme", "value": theme}]
        self.tell("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.tell("Emulation.setEmulatedMedia", features=media)
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self.tell("Page.navigate", url=address)
        self.waits_for(f"document.readyState === 'complete' && location.href === {json.dumps(address)}")

    def waits_for(self, condition: str) -> None:
        """Poll until an expression is true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.value(condition):
            assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s: {condition}"
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = self.tell("Runtime.evaluate", expression=expression, returnByValue=True)["result"]
        return result.get("value")

    def press(self, key: str) -> None:
        """Press and release a key, "Tab" for one."""
        for kind in ("keyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9)

    def picture(self, to: Path) -> bytes:
        """A picture of the whole page, as a PNG."""
        shot = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        to.write_bytes(base64.b64decode(shot["data"]))
        return to.read_bytes()

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer}"
        return dict(answer["result"])

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(event["params"]["entry"]["text"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(event["params"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], PATIENCE_SECONDS)[0], "the browser is silent"
            read = os.read(self._in, 1 << 20)
            assert read, "the browser has ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))
