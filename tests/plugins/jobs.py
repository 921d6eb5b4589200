"""Small workloads, built the way the worker builds them: by name, through the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from ampd.core.config import JobConfig
from ampd.engine.registry import load, options_of, workload_spec
from ampd.sdk import Evaluating, Workload, WorkloadContext

TINY: Mapping[str, Mapping[str, Any]] = {
    "bytegpt": {"context": 16, "layers": 1, "width": 16, "heads": 2, "ngram_rows": 64},
    "digits": {"channels": 4},
}
NAMES = tuple(TINY)


class Both(Workload, Evaluating):
    """What both workloads here are; for annotations only."""


def built(name: str, *, seed: int = 1, size: int = 4, accumulate: int = 2, **options: Any) -> Both:
    """The workload `name` with small options, those given on top."""
    spec = workload_spec(name)
    given = options_of(spec, {**TINY[name], **options}, "workload.options")
    workload: Both = load(spec.build)(given, context(name, seed=seed, size=size, accumulate=accumulate))
    return workload


def context(name: str, *, seed: int, size: int, accumulate: int) -> WorkloadContext:
    """A context on the CPU as a job file would give it."""
    job = {
        "job": {"name": "test", "directory": "unused", "seed": seed, "windows": 1},
        "workload": {"name": name},
        "batch": {"size": size, "accumulate": accumulate},
    }
    return WorkloadContext(config=msgspec.convert(job, JobConfig), device=torch.device("cpu"))


def state_of(workload: Both) -> dict[str, torch.Tensor]:
    """Copies of all weights and buffers, and torch's generator."""
    named = {**dict(workload.model.named_parameters()), **dict(workload.model.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in named.items()} | {
        "generator": torch.get_rng_state()
    }
