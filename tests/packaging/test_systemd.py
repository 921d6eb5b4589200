"""The systemd unit: accepted without a word, little exposed, and in step with the daemon's exit codes and budgets."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ampd.core.config import RestartSection
from ampd.errors import ExitCode

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT, GPU = "ampd@.service", "ampd@.service.d/gpu.conf"
ANALYZE = shutil.which("systemd-analyze")

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str) -> str:
    """What systemd-analyze prints, on both streams."""
    assert ANALYZE
    done = subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A copy of the unit whose program exists here."""
    path = tmp_path / UNIT
    path.write_text((SYSTEMD / UNIT).read_text().replace("/opt/ampd/bin/ampd", "/bin/true"))
    return path


@pytest.fixture
def gpu_unit(unit: Path) -> Path:
    """The same with the drop-in for GPUs beside it."""
    drop_in = unit.parent / GPU
    drop_in.parent.mkdir()
    drop_in.write_text((SYSTEMD / GPU).read_text())
    return unit


def setting(name: str) -> str:
    """The value of a setting that the unit gives once."""
    [value] = re.findall(rf"^{name}=(.*)$", (SYSTEMD / UNIT).read_text(), re.MULTILINE)
    return str(value)


def exposure(unit: Path) -> float:
    """The overall figure of `systemd-analyze security`: 0 is shut, 10 is open."""
    report = analyze("security", "--offline=yes", str(unit))
    found = re.search(r"exposure level for \S+: ([0-9.]+)", report)
    assert found, report
    return float(found[1])


@needs_systemd
def test_the_unit_is_verified_without_a_word(unit: Path) -> None:
    """`systemd-analyze verify` exits 0 on unknown keys too, so its silence is what counts."""
    assert analyze("verify", str(unit)) == ""


@needs_systemd
def test_the_unit_with_the_gpu_drop_in_is_verified_without_a_word(gpu_unit: Path) -> None:
    """The drop-in has no unknown key either."""
    assert analyze("verify", str(gpu_unit)) == ""


@needs_systemd
def test_the_verification_can_fail(gpu_unit: Path) -> None:
    """A misspelt key in the drop-in is reported, so the two tests above see both files."""
    drop_in = gpu_unit.parent / GPU
    drop_in.write_text(drop_in.read_text() + "\nPrivateDevises=no\n")

    assert "PrivateDevises" in analyze("verify", str(gpu_unit))


@needs_systemd
def test_a_cpu_job_is_exposed_by_at_most_1_0(unit: Path) -> None:
    """Debian's most hardened daemon, redis, has 1.2."""
    assert exposure(unit) <= 1.0


@needs_systemd
def test_a_gpu_job_is_exposed_by_at_most_1_3(gpu_unit: Path, tmp_path: Path) -> None:
    """The drop-in opens the GPU's devices and little else."""
    assert 1.0 < exposure(gpu_unit) <= 1.3


def test_errors_that_do_not_mend_themselves_are_not_restarted() -> None:
    """A wrong job file and a job that another daemon has: the codes are the daemon's own."""
    assert setting("RestartPreventExitStatus").split() == [
        str(ExitCode.USAGE.value),
        str(ExitCode.CONFLICT.value),
    ]


def test_a_stop_leaves_time_to_save() -> None:
    """systemd waits longer than the daemon's default budget for the last checkpoint."""
    assert float(setting("TimeoutStopSec").removesuffix("s")) > RestartSection().save_budget_seconds


def test_a_stop_is_told_to_the_supervisor_alone() -> None:
    """A worker that gets systemd's SIGTERM directly would leave without saving."""
    assert setting("KillMode") == "mixed"
