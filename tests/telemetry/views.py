"""Job views for tests: a starting one, and one in the middle of a float16 run with a bit of everything."""

from __future__ import annotations

from typing import Any

from ampd.core.change import build
from ampd.core.config import JobConfig
from ampd.core.kept import Kept, MemorySaved
from ampd.core.ledger import Counts, Span
from ampd.core.lifecycle import JobState
from ampd.core.messages import Evaluated, Ready, Saved, Snapshot
from ampd.core.precision import Capability, Choice, Precision
from ampd.core.view import JobView

STARTED = 1_800_000_000.0

COUNTS = Counts(
    windows=400, applied=395, quarantined=1, skipped={"data": 3, "model": 1}, low_precision=400,
    fp32_fallbacks={"forward": 3, "scale": 2}, replays={"forward": {"float32": 3, "retry": 1}, "scale": {"float32": 2}},
    nonfinite_losses=3, scale_growths=1, scale_backoffs=5, clipped=40, samples=12_800, tokens=1_638_400,
)  # fmt: skip


def job_config(**sections: dict[str, Any]) -> JobConfig:
    """A configuration with some sections filled in."""
    job = {"name": "bytes", "directory": "runs/bytes", "windows": 1200}
    return build({"job": job, "workload": {"name": "bytegpt"}, **sections})


def starting(**fields: Any) -> JobView:
    """A job whose worker has not spoken yet."""
    named: dict[str, Any] = {
        "name": "bytes", "directory": "runs/bytes", "boot": "b00t", "pid": 4242, "endpoint": "ipc:///run/ampd/bytes/control",
        "http": "127.0.0.1:9647", "started": STARTED, "config": job_config(),
    }  # fmt: skip
    return JobView(**(named | fields))


def running(**fields: Any) -> JobView:
    """A float16 job at window 400 of 1200, ten minutes after its start."""
    named: dict[str, Any] = {
        "state": JobState.RUNNING, "state_since": STARTED + 5, "ready": ready(), "choice": ready().choice,
        "snapshots": {0: snapshot()}, "last_progress": STARTED + 600, "requests": {"set": 2}, "refusals": {"BAD_VALUE": 1},
        "changes": {"operator": 1}, "checkpoints": 2, "last_saved": saved(), "last_saved_at": STARTED + 590,
        "last_evaluated": Evaluated(window=400, figures={"loss": 1.75}, seconds=0.5), "best_loss": 1.7, "events": 17,
        "levels": {"info": 17}, "heard": {0: STARTED + 600},
    }  # fmt: skip
    return starting(**(named | fields))


def snapshot(**fields: Any) -> Snapshot:
    """Rank 0 at window 400."""
    named: dict[str, Any] = {
        "rank": 0, "window": 400, "total_windows": 1200, "epoch": 1, "revision": 1, "precision": Precision.FLOAT16,
        "counts": COUNTS, "job": COUNTS, "span": COUNTS, "span_scale": span(1024.0, 65536.0), "span_loss": span(1.5, 3.5),
        "loss": 1.625, "grad_norm": 0.75, "lr": 1e-3, "scale": 32768.0,
        "seconds": {"train": 90.0, "data": 10.0, "checkpoint": 0.25}, "memory": {"peak": 512 * 2.0**20}, "zeros": 0.25,
        "kept": {"float16": Kept(by_dtype={"float16": 3_000_000}), "float32": Kept(by_dtype={"float32": 5_000_000})},
        "saved": MemorySaved(bytes=2_000_000, basis="float32 window"),
    }  # fmt: skip
    return Snapshot(**(named | fields))


def span(*values: float) -> Span:
    """The span of these values."""
    made = Span()
    for value in values:
        made.add(value)
    return made


def ready(**fields: Any) -> Ready:
    """The worker's report that it begins at window 0."""
    named: dict[str, Any] = {
        "window": 0, "total_windows": 1200, "windows_per_epoch": 300, "resumed": False, "revision": 1, "config": job_config(),
        "capability": Capability(device="cpu", native=(Precision.FLOAT16,)), "parameters": 1_850_000, "torch_version": "2.13.0",
        "choice": Choice(precision=Precision.FLOAT16, reason="named in the configuration"),
    }  # fmt: skip
    return Ready(**(named | fields))


def saved(**fields: Any) -> Saved:
    """The report of the checkpoint before window 390."""
    named: dict[str, Any] = {
        "window": 390, "path": "runs/bytes/checkpoints/390", "bytes": 22_000_000, "seconds": 0.5, "stall_seconds": 0.125,
    }  # fmt: skip
    return Saved(**(named | fields))
