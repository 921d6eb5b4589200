"""Energy of processors: what the kernel's counters say over time, through their wrapping and their absence."""

from __future__ import annotations

from pathlib import Path

import pytest

from ampd.telemetry.energy import Energy
from ampd.telemetry.readings import Reading

MOST = 262_143_328_850


class Machine:
    """A directory as the kernel's powercap is laid out: packages, what is inside of them, and the whole platform."""

    def __init__(self, root: Path, packages: int = 2) -> None:
        self.root = root
        for number in range(packages):
            self.write(f"intel-rapl:{number}", f"package-{number}", 1_000_000)
            self.write(f"intel-rapl:{number}:0", "core", 7_000_000)
            self.write(f"intel-rapl-mmio:{number}", f"package-{number}", 1_000_000)
        self.write(f"intel-rapl:{packages}", "psys", 5)
        (root / "intel-rapl").mkdir()

    def write(self, zone: str, name: str, microjoules: int) -> None:
        """A zone with its counter."""
        home = self.root / zone
        home.mkdir(exist_ok=True)
        (home / "name").write_text(f"{name}\n")
        (home / "energy_uj").write_text(f"{microjoules}\n")
        (home / "max_energy_range_uj").write_text(f"{MOST}\n")

    def take(self, package: int, microjoules: int) -> None:
        """The counter of a package shows so much."""
        self.write(f"intel-rapl:{package}", f"package-{package}", microjoules)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Two processors."""
    return Machine(tmp_path)


def joules(energy: Energy) -> Reading:
    """What is on the page."""
    return energy.readings()["ampd_processor_energy_joules_total"]


def test_it_begins_at_0_with_a_series_for_each_package(machine: Machine) -> None:
    """What was before belongs to others; parts of a package are in it, and the platform's counter is none of a processor."""
    assert joules(Energy(machine.root)) == {"0": 0.0, "1": 0.0}


def test_what_is_taken_adds_up(machine: Machine) -> None:
    """In joules, each package by itself."""
    energy = Energy(machine.root)
    joules(energy)
    for shown in (3_500_000, 6_000_000):
        machine.take(1, shown)
        found = joules(energy)

    assert found == {"0": 0.0, "1": 5.0}


def test_a_counter_that_began_again_loses_nothing(machine: Machine) -> None:
    """The page's own counter goes on."""
    energy = Energy(machine.root)
    machine.take(0, MOST - 2_000_000)
    joules(energy)
    machine.take(0, 1_000_000)

    assert joules(energy) == {"0": 3.0, "1": 0.0}


def test_a_counter_that_can_no_longer_be_read_stays(machine: Machine) -> None:
    """Rather than a series that vanishes and comes again."""
    energy = Energy(machine.root)
    joules(energy)
    machine.take(0, 2_000_000)
    joules(energy)
    (machine.root / "intel-rapl:0" / "energy_uj").unlink()

    assert joules(energy) == {"0": 1.0, "1": 0.0}


def test_what_may_not_be_read_has_no_series(machine: Machine) -> None:
    """A directory in the place of the file stands for a file of root's: reading either is an error of the system."""
    file = machine.root / "intel-rapl:0" / "energy_uj"
    file.unlink()
    file.mkdir()

    assert joules(Energy(machine.root)) == {"1": 0.0}


def test_a_machine_without_counters_has_no_series(tmp_path: Path) -> None:
    """A virtual machine, or another kind of processor."""
    assert joules(Energy(tmp_path / "none")) == {}
