"""What a rank trains on: the device as its driver names it, or the processor as the kernel does.

torch knows neither the driver's version nor the model of a processor; the kernel has both in files, which are read once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from ampd.core.hardware import Hardware

_PROCESSORS = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


def hardware_of(device: torch.device) -> Hardware:
    """The device on CUDA, the machine on the CPU. No host sync."""
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return Hardware(
            name=found.name, capability=f"{found.major}.{found.minor}",
            driver=driver_version(_DRIVER), memory_bytes=found.total_memory,
        )  # fmt: skip
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Hardware(
        name=processor_model(_PROCESSORS) or os.uname().machine,
        capability=torch.backends.cpu.get_cpu_capability(),
        memory_bytes=installed,
    )


def processor_model(file: Path) -> str:
    """The first model that /proc/cpuinfo names; "" where it names none, as on most ARM machines."""
    return _found(file, r"^model name\s*:\s*(.+)$")


def driver_version(file: Path) -> str:
    """The version in /proc/driver/nvidia/version, of either kind of kernel module."""
    return _found(file, r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s")


def _found(file: Path, pattern: str) -> str:
    if not file.exists():
        return ""
    match = re.search(pattern, file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match[1].strip() if match else ""
