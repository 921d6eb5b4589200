"""What `quick` is: a workload for jobs that are started hundreds of times. A plugin of its own, without being installed.

What a start costs is mostly imports, so it needs nothing beside torch. `offer` lays out the metadata of a distribution
with its entry point; with that directory on PYTHONPATH, daemon and worker find it as they find any plugin.
"""

from __future__ import annotations

from pathlib import Path

from ampd.sdk import NoOptions, WorkloadSpec

QUICK = WorkloadSpec(
    build="tests.story.quick:build",
    summary="a small regression with BatchNorm and dropout",
    options=NoOptions,
)


def offer(directory: Path) -> None:
    """Make `quick` known to whoever has the directory on PYTHONPATH."""
    info = directory / "ampd_quick-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ampd-quick\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[ampd.workloads]\nquick = tests.story.quick_spec:QUICK\n")
