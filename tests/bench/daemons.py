"""A real daemon with the racing worker, on the other core, scraped and asked for its status each second."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ampd.control.client import Client
from ampd.core import protocol as p
from ampd.errors import CommandError

_JOB = """
[job]
name = "bench"
directory = "{directory}"
windows = 1000000000

[workload]
name = "digits"            # the racing worker brings its own

[amp]
dtype = "{dtype}"

[optim]
schedule = "constant"

[clip]
max_norm = 1.0

[checkpoint]
every_windows = 1000000000 # a checkpoint is no part of a step

[device]
type = "cpu"
threads = 1

[http]
listen = "127.0.0.1:0"
"""
Turns = Mapping[str, Sequence[tuple[float, float]]]


def run_race(task: str, dtype: str) -> Turns:
    """Seconds of a step, by contestant and turn: of the clock, and of the processor."""
    with tempfile.TemporaryDirectory(prefix="ampd-") as directory:
        home = Path(directory)
        (home / "job.toml").write_text(_JOB.format(directory=home / "run", dtype=dtype))
        worker = [sys.executable, "-m", "tests.bench.racer", "--task", task, "--turns", str(home / "turns")]
        command = [
            *(sys.executable, "-m", "tests.daemon.start", shlex.join(worker)),
            *("start", "--config", str(home / "job.toml")),
        ]
        environment = os.environ | {"AMPD_RUNTIME_DIR": str(home / "rt")}
        with (home / "log").open("wb") as log:
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _watch(daemon, f"ipc://{home}/rt/bench/control.sock")
            turns: Turns = json.loads((home / "turns").read_text())
        except (AssertionError, FileNotFoundError):
            sys.stderr.write((home / "log").read_text() + (home / "run" / "worker.log").read_text())
            raise
        finally:
            daemon.kill()
            daemon.wait()
        return turns


def _watch(daemon: subprocess.Popen[bytes], endpoint: str) -> None:
    """Scrape and ask once a second until the daemon has ended well."""
    while True:
        try:
            assert daemon.wait(timeout=1.0) == 0, "the daemon failed"
        except subprocess.TimeoutExpired:
            _look(endpoint)
        else:
            return


def _look(endpoint: str) -> None:
    with suppress(CommandError, OSError):  # not there yet, or gone just now
        status = Client(endpoint).ask(p.Status(), 5.0).result
        with urllib.request.urlopen(f"http://{status['http']}/metrics", timeout=5.0) as page:
            page.read()
