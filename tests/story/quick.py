"""The toy of the engine's tests as a workload of whole jobs: dropout, BatchNorm, micro-batches, and a start in a moment."""

from __future__ import annotations

from ampd.sdk import NoOptions, WorkloadContext
from tests.engine.toy import Toy


def build(_options: NoOptions, context: WorkloadContext) -> Toy:
    """The workload, its weights from the job's seed."""
    return Toy(seed=context.config.job.seed)
