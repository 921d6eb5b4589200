"""Real jobs, of `plugins/ampd-digits` or of something quicker: the whole product as processes, nothing faked."""

from __future__ import annotations

import os
import shlex
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from tests.daemon.daemons import Daemon, Job, Starter
from tests.story import quick_spec

WORKER = f"{shlex.quote(sys.executable)} -m ampd.worker"

AnyJob = TypeVar("AnyJob", bound=Job)


class DigitsJob(Job):
    """A job file for the digits, small and exact: one thread, deterministic kernels, injection allowed."""

    starter: Starter | None = None
    """Where daemons come from, if not from a command line."""

    def __init__(self, home: Path, windows: int) -> None:
        self.windows = windows
        super().__init__(home)

    def write(self, **sections: str) -> None:
        """The job file, with some sections replaced."""
        chosen = {
            "job": f'name = "toy"\ndirectory = "{self.directory}"\nwindows = {self.windows}',
            "workload": 'name = "digits"\n[workload.options]\nchannels = 4',
            "amp": 'dtype = "float32"\ninit_scale = 1024.0',
            "batch": "size = 8\naccumulate = 2",
            "clip": "max_norm = 1.0",
            "optim": "lr = 3e-3\nwarmup_windows = 20",
            "device": 'type = "cpu"\nthreads = 1\ndeterministic = true',
            "checkpoint": "every_windows = 50",
            "inject": "allowed = true",
        }
        super().write(**chosen | sections)

    def start(self, *arguments: str, worker: str = WORKER, windows: int | None = None) -> Daemon:
        """`ampd start` with the real worker."""
        words = ["start", "--config", str(self.file), *arguments]
        self.daemons.append(
            Daemon(self.home, words, worker=worker, environment=self.environment, starter=self.starter)
        )
        return self.daemons[-1]

    @property
    def losses(self) -> str:
        """The whole loss log."""
        return (self.directory / "losses.jsonl").read_text()


class QuickJob(DigitsJob):
    """The same for a workload that needs nothing but torch: what is killed a thousand times must start quickly."""

    def __init__(self, home: Path, windows: int) -> None:
        super().__init__(home, windows)
        quick_spec.offer(home / "plugins")
        paths = [str(home / "plugins"), os.environ.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))

    def write(self, **sections: str) -> None:
        """The job file, with some sections replaced."""
        super().write(**{"workload": 'name = "quick"', "batch": ""} | sections)


@contextmanager
def digits_job(windows: int) -> Iterator[DigitsJob]:
    """A job in a directory of its own (a short path, for its sockets); no process is left behind."""
    with TemporaryDirectory(prefix="ampd-") as home, _cleaned(DigitsJob(Path(home), windows)) as job:
        yield job


@contextmanager
def quick_job(windows: int, starter: Starter | None = None) -> Iterator[QuickJob]:
    """The same for the quick workload, with daemons from where they are to come from."""
    with TemporaryDirectory(prefix="ampd-") as home, _cleaned(QuickJob(Path(home), windows)) as job:
        job.starter = starter
        yield job


@contextmanager
def _cleaned(job: AnyJob) -> Iterator[AnyJob]:
    try:
        yield job
    finally:
        job.clean()


def metrics_of(daemon: Daemon) -> dict[str, float]:
    """Samples of /metrics by name with labels."""
    with urllib.request.urlopen(f"http://{daemon.status()['http']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _space, value in samples}
