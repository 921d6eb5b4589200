"""Runs of the loop that are killed at a failpoint: `python -m tests.engine.killed_runs DIRECTORY POINT=kill@N ...`.

Each is a fork of a process that has torch loaded already, in a directory named after its failpoint; how it ended is
printed, one line each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from ampd import failpoints
from tests.engine.runs import Patient

JOB: dict[str, Any] = {
    "job": {"windows": 12},
    "checkpoint": {"every_windows": 3, "keep": 2},
    "amp": {"dtype": "float32"},
}


def run(directory: Path) -> Patient:
    """The run that is killed, resumed and never killed; the same each time."""
    torch.set_num_threads(1)
    return Patient(directory, **JOB)


def main() -> None:
    home, *words = sys.argv[1:]
    for word in words:
        pid = os.fork()
        if pid == 0:
            failpoints.arm({failpoints.VARIABLE: word})
            run(Path(home) / word.partition("=")[0]).finish()
            os._exit(0)
        print(word, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
