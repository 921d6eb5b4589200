"""What a worker asks of its process: freed memory stays, so that a step does not pay for its gradients in page faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STEPS = """
import ctypes, resource
from ampd.engine.device import keep_freed_memory
if {kept}:
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def step():  # blocks too small to be mapped one by one, so that they lie at the end of the heap
    blocks = [libc.malloc(100_000) for _ in range(160)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    for block in blocks:
        libc.free(ctypes.c_void_p(block))

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(5):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


def faults_of_ten_steps(*, kept: bool) -> int:
    """Page faults of ten steps with 16 MiB of gradients, in a process of its own, after a few other steps."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS.format(kept=kept)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """Later steps meet hardly a page that they have not met before; left to itself glibc has thousands mapped anew."""
    kept, given_back = faults_of_ten_steps(kept=True), faults_of_ten_steps(kept=False)

    assert kept < 400
    assert given_back > 4000
