"""Memory of a rank: how much is in use, how much there may be, and how often that was too little. No host sync.

The limit is what the kernel or the driver would hold this process to, and not what the machine has: in a container or a
systemd slice it is the least `memory.max` on the way up to the root, on CUDA the share that the process gave itself.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_FILES = {"": "memory.max", "memory": "memory.limit_in_bytes"}
"""By the name of the hierarchy: the one of version 2 has none."""


class Shortages:
    """Times that memory ran out in this process; for the loop's thread."""

    def __init__(self) -> None:
        self.count = 0


def memory_in_use(device: torch.device) -> dict[str, float]:
    """Bytes by kind: of the device's allocator on CUDA, of the process on the CPU. No host sync."""
    if device.type == "cuda":
        return {
            "allocated": float(torch.cuda.memory_allocated(device)),
            "reserved": float(torch.cuda.memory_reserved(device)),
            "peak": float(torch.cuda.max_memory_allocated(device)),
        }
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)}


def memory_limit(device: torch.device) -> float:
    """Bytes that this process may have at most: of the device on CUDA, of the host on the CPU."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return total * torch.cuda.get_per_process_memory_fraction(device)
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    own = _OWN_CGROUPS.read_text() if _OWN_CGROUPS.exists() else ""
    return float(min([installed, *cgroup_limits(own, _CGROUPS)]))


def allocator_retries(device: torch.device) -> int:
    """Times that CUDA's allocator gave its cache back and asked again, since this process began; 0 on the CPU."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.memory_stats_as_nested_dict(device).get("num_alloc_retries", 0))


def cgroup_limits(own: str, root: Path) -> Iterator[int]:
    """The limits of the groups that `own` (as /proc/self/cgroup has it) lists under `root`, and of those above them."""
    for line in own.splitlines():
        _number, controllers, path = line.split(":", 2)
        hierarchy = "memory" if "memory" in controllers.split(",") else controllers
        if hierarchy in _FILES:
            yield from _limits(root / hierarchy, Path(path.lstrip("/")), _FILES[hierarchy])


def _limits(root: Path, path: Path, name: str) -> Iterator[int]:
    for group in (path, *path.parents):
        file = root / group / name
        if (
            file.exists() and (limit := file.read_text().strip()) != "max"
        ):  # seen from a container, not all are there
            yield int(limit)
