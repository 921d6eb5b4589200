"""What a rank trains on, as kernel and driver write it down."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ampd.core import messages as m
from ampd.engine.hardware import driver_version, hardware_of, processor_model
from tests.engine import toy
from tests.engine.runs import Run

X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7763 64-Core Processor\n\nprocessor\t: 1\nmodel name\t: other\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.154.05  Thu Dec 28 15:37:48 UTC 2023\nGCC version:  gcc 12.3.0\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder)\nGCC version: 12\n"


def file_of(tmp_path: Path, text: str) -> Path:
    """A file with this text."""
    file = tmp_path / "file"
    file.write_text(text)
    return file


@pytest.mark.parametrize(("text", "model"), [(X86, "AMD EPYC 7763 64-Core Processor"), (ARM, "")])
def test_the_processor_is_the_first_that_is_named(text: str, model: str, tmp_path: Path) -> None:
    """Machines have one model; not every kernel names it."""
    assert processor_model(file_of(tmp_path, text)) == model


@pytest.mark.parametrize(("text", "version"), [(CLOSED, "535.154.05"), (OPEN, "550.54.15"), ("", "")])
def test_the_driver_is_that_of_the_kernel_module(text: str, version: str, tmp_path: Path) -> None:
    """The closed module and the open one word it differently; the compiler's version is not it."""
    assert driver_version(file_of(tmp_path, text)) == version


def test_a_machine_without_the_files_names_nothing(tmp_path: Path) -> None:
    """A container may have neither."""
    assert (processor_model(tmp_path / "none"), driver_version(tmp_path / "none")) == ("", "")


def test_on_the_cpu_it_is_the_machine() -> None:
    """With a name in any case, what torch uses of it, and no driver."""
    found = hardware_of(toy.CPU)

    assert found.name
    assert found.capability == torch.backends.cpu.get_cpu_capability()
    assert (found.driver, found.memory_bytes > 2**20) == ("", True)


def test_a_run_tells_what_it_trains_on(tmp_path: Path) -> None:
    """With every snapshot, so that a lost one loses nothing."""
    run = Run(tmp_path, job={"windows": 1})

    run.finish()

    assert {said.hardware for said in run.said(m.Snapshot)} == {hardware_of(toy.CPU)}
