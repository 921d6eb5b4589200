"""Memory of a rank: what is in use, what there may be at most, and how often that was too little."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ampd.engine.memory import allocator_retries, cgroup_limits, memory_in_use, memory_limit

CPU = torch.device("cpu")
GIB = 1 << 30


def group(root: Path, path: str, name: str, limit: str) -> None:
    """A control group with a limit."""
    (root / path).mkdir(parents=True, exist_ok=True)
    (root / path / name).write_text(f"{limit}\n")


def test_the_limit_of_a_host_is_at_most_what_is_installed() -> None:
    """And more than what this process holds already, which nobody has ended."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    assert memory_in_use(CPU)["peak"] < memory_limit(CPU) <= installed


def test_the_cpu_has_no_allocator_that_retries() -> None:
    """Memory that the kernel does not give ends the process."""
    assert allocator_retries(CPU) == 0


def test_the_groups_above_count_as_well(tmp_path: Path) -> None:
    """A slice may allow less than the service within it; a group without a limit says `max`."""
    group(tmp_path, "ampd.slice", "memory.max", str(2 * GIB))
    group(tmp_path, "ampd.slice/job.service", "memory.max", "max")
    group(tmp_path, "ampd.slice/job.service/ranks", "memory.max", str(8 * GIB))

    own = "0::/ampd.slice/job.service/ranks\n"

    assert sorted(cgroup_limits(own, tmp_path)) == [2 * GIB, 8 * GIB]


def test_a_container_sees_its_own_limit_at_the_root(tmp_path: Path) -> None:
    """Its group is the root of what it sees, and the path may name groups that are not there."""
    group(tmp_path, "", "memory.max", str(GIB))

    assert list(cgroup_limits("0::/../pod/container\n", tmp_path)) == [GIB]


def test_version_1_has_a_hierarchy_for_memory(tmp_path: Path) -> None:
    """Other controllers of that version say nothing of memory."""
    group(tmp_path, "memory/docker/abc", "memory.limit_in_bytes", str(3 * GIB))
    group(tmp_path, "cpu/docker/abc", "memory.limit_in_bytes", "1")

    own = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n"

    assert list(cgroup_limits(own, tmp_path)) == [3 * GIB]


def test_a_machine_without_groups_has_no_limit_of_theirs(tmp_path: Path) -> None:
    """Then what is installed is all that is known."""
    assert list(cgroup_limits("", tmp_path)) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_the_limit_on_cuda_is_the_share_that_the_process_has() -> None:
    """`amp.amp_memory_fraction` lowers it."""
    device = torch.device("cuda")
    whole = memory_limit(device)
    torch.cuda.set_per_process_memory_fraction(0.5, device)
    half = memory_limit(device)
    torch.cuda.set_per_process_memory_fraction(1.0, device)

    assert half == pytest.approx(whole / 2)
    assert allocator_retries(device) >= 0
