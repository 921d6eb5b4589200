"""A worker that is killed right before any step of its files goes on exactly: loss log and weights as if never killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ampd.engine import checkpoint
from ampd.failpoints import POINTS
from tests.engine import killed_runs
from tests.tree import ROOT

TROUBLED = {"checkpoint.room"}  # reached only while a run waits for its disk
STEPS = [name for name in POINTS if name.startswith(("losses.", "checkpoint.")) and name not in TROUBLED]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for each step, with what a worker left that was killed there."""
    home = tmp_path_factory.mktemp("killed")
    words = [f"{name}=kill@{1 if name == 'checkpoint.remove' else 2}" for name in STEPS]
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.killed_runs", str(home), *words],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"{word} {-signal.SIGKILL}" for word in words]
    return home


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """The loss log and the last checkpoint of a run that was never killed."""
    return _result(tmp_path_factory.mktemp("whole"))


def _result(directory: Path) -> tuple[str, dict[str, str]]:
    run = killed_runs.run(directory)
    assert run.finish().result == "completed"
    newest = checkpoint.listed(directory / "checkpoints")[-1]
    return run.losses, {name: entry.sha256 for name, entry in checkpoint.verify(newest).files.items()}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_at_a_step_goes_on_exactly(
    killed: Path, whole: tuple[str, dict[str, str]], step: str
) -> None:
    """From the newest complete checkpoint, with nothing that was half done."""
    directory = killed / step

    assert _result(directory) == whole

    assert not [path for path in (directory / "checkpoints").iterdir() if path.name.startswith(".")]
