"""The device: which one, and what it does natively."""

from __future__ import annotations

import ctypes

import torch

from ampd.core.amp import AMPConfig
from ampd.core.config import DeviceSection
from ampd.core.precision import Capability, Precision
from ampd.errors import ConfigError


def choose_device(section: DeviceSection) -> torch.device:
    """The device of `[device] type`; raises ConfigError where it is not there."""
    has_cuda = torch.cuda.is_available()
    if section.type == "cuda" and not has_cuda:
        raise ConfigError(
            'device.type = "cuda": torch sees no CUDA device', field="device.type",
            hint='use "auto" or "cpu", or look at nvidia-smi and the installed torch build',
        )  # fmt: skip
    return (
        torch.device("cuda", torch.cuda.current_device())
        if has_cuda and section.type != "cpu"
        else torch.device("cpu")
    )


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc takes no larger one


def prepare_process(section: DeviceSection) -> None:
    """Set threads, determinism and what becomes of freed memory, all of the whole process."""
    keep_freed_memory()
    if section.threads:
        torch.set_num_threads(section.threads)
    torch.use_deterministic_algorithms(section.deterministic)


def keep_freed_memory() -> None:
    """Keep what is freed for the next step instead of giving it back to the kernel; only glibc can be told.

    A step frees its gradients, which are then the end of the heap: glibc would cut it off there, and the next backward
    would have each page mapped and zeroed anew. With four square layers of width 1024 on the CPU that is 4500 page
    faults and 9 of 31 ms a step. Tensors above 32 MiB are mapped one by one all the same.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)


def cap_memory(amp: AMPConfig, device: torch.device) -> None:
    """Cap the process's share of the device's memory where that is asked for; raises ConfigError on the CPU."""
    if not amp.enable_amp_memory_pooling:
        return
    if device.type != "cuda":
        raise ConfigError(
            "amp.enable_amp_memory_pooling = true caps CUDA memory, and the job runs on the CPU",
            field="amp.enable_amp_memory_pooling", hint="leave it out, or limit the process by systemd's MemoryMax",
        )  # fmt: skip
    torch.cuda.set_per_process_memory_fraction(amp.amp_memory_fraction, device)


def capability_of(device: torch.device) -> Capability:
    """What `device` does natively; emulated precisions run, but slower than float32."""
    return _cuda_capability(device) if device.type == "cuda" else _cpu_capability()


def _cuda_capability(device: torch.device) -> Capability:
    # The plain question answers True on cards that only emulate it (T4, V100).
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    answers = {Precision.BFLOAT16: has_bfloat16, Precision.FLOAT16: True}
    major, minor = torch.cuda.get_device_capability(device)
    return _capability(torch.cuda.get_device_name(device), answers, f"sm_{major}{minor}")


def _cpu_capability() -> Capability:
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    has_float16 = torch.cpu._is_amx_fp16_supported()
    answers = {Precision.BFLOAT16: has_bfloat16, Precision.FLOAT16: has_float16}
    return _capability("CPU", answers, torch.backends.cpu.get_cpu_capability())


def _capability(device: str, is_native: dict[Precision, bool], detail: str) -> Capability:
    return Capability(
        device=device,
        native=tuple(p for p, native in is_native.items() if native),
        emulated=tuple(p for p, native in is_native.items() if not native),
        detail=detail,
    )
