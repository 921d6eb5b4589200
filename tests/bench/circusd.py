"""A circusd with one process, for the load benchmark to ask the same of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.load import Stream, crowd

_CONFIG = """
[circus]
endpoint = ipc://{home}/control.sock
pubsub_endpoint = ipc://{home}/events.sock

[watcher:toy]
cmd = sleep 1000000
numprocesses = 1
"""


def program_or_none() -> str | None:
    """Where circusd is: beside this interpreter, or on the PATH."""
    return shutil.which("circusd", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@contextmanager
def running() -> Iterator[tuple[str, int]]:
    """Its endpoint, and the pid of its process."""
    with tempfile.TemporaryDirectory(prefix="circus-") as directory:
        home = Path(directory)
        (home / "circus.ini").write_text(_CONFIG.format(home=home))
        with (home / "log").open("wb") as log:
            program = program_or_none()
            assert program is not None, "circus is not installed"
            daemon = subprocess.Popen([program, str(home / "circus.ini")], stdout=log, stderr=log)
        try:
            yield f"ipc://{home}/control.sock", _child(daemon, home)
        finally:
            daemon.terminate()
            daemon.wait(20)


def _child(daemon: subprocess.Popen[bytes], home: Path) -> int:
    deadline = time.monotonic() + 20
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
    while not (home / "control.sock").exists() or not children.read_text().split():
        assert time.monotonic() < deadline, (home / "log").read_text()
        time.sleep(0.05)
    with crowd(f"ipc://{home}/control.sock", 1) as one:
        one.ask(gets(1.0))  # it answers
    return int(children.read_text().split()[0])


def gets(rate: float) -> Stream:
    """Questions for one option."""
    return Stream(
        rate,
        lambda i: json.dumps(
            {"id": i, "command": "get", "properties": {"name": "toy", "keys": ["numprocesses"]}}
        ).encode(),
        lambda reply: reply["status"] == "ok",
    )
