"""The structs of the job file: defaults, bounds, and that nothing in them can be changed in place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ampd.core.amp import AMPConfig
from ampd.core.config import BatchSection, JobConfig
from ampd.core.keys import table, value_of
from ampd.core.section import Section
from ampd.errors import ConfigError
from tests.core.jobs import job

# What the public contract of AMPConfig promises; a key that comes later is added here with its default.
PROMISED = {
    "enabled": True, "dtype": "auto", "init_scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5,
    "growth_interval": 2000, "min_scale": 1.0, "max_scale": 2.0**24, "hysteresis": 1, "scale_loss": True,
    "enable_gradient_scaling": True, "enable_tf32": True, "enable_cudnn_benchmark": True,
    "enable_fallback_to_fp32": True, "max_fp32_fallbacks": 10, "on_fallback_limit": "warn", "track_amp_stats": True,
}  # fmt: skip

REFUSED = [
    ("job", "name", "Upper"), ("job", "name", ""), ("job", "name", "a" * 33), ("job", "name", "-a"),
    ("job", "directory", ""), ("job", "seed", -1), ("job", "seed", 2**31), ("job", "windows", 0),
    ("workload", "name", ""), ("batch", "size", 0), ("batch", "accumulate", 0),
    ("amp", "dtype", "half"), ("amp", "init_scale", 0.0), ("amp", "init_scale", 2.0**41),
    ("amp", "growth_factor", 1.0), ("amp", "backoff_factor", 0.0), ("amp", "backoff_factor", 1.0),
    ("amp", "growth_interval", 0), ("amp", "min_scale", 0.0), ("amp", "hysteresis", 0), ("amp", "ladder", []),
    ("amp", "ladder", ["float16"]), ("amp", "ladder", ["retry", "bfloat16", "float32", "retry"]),
    ("amp", "max_fp32_fallbacks", -1), ("amp", "on_fallback_limit", "shrug"), ("amp", "on_bad_window", "apply"),
    ("optim", "name", "lion"), ("optim", "lr", 0.0), ("optim", "lr", 101.0), ("optim", "weight_decay", -0.1),
    ("optim", "momentum", 1.0), ("optim", "betas", [0.9]), ("optim", "betas", [1.0, 0.9]), ("optim", "eps", 0.0),
    ("optim", "warmup_windows", -1), ("optim", "min_lr_ratio", 1.1), ("clip", "max_norm", 0.0),
    ("checkpoint", "every_windows", 0), ("checkpoint", "keep", 1), ("evaluate", "every_windows", -1),
    ("device", "type", "tpu"), ("device", "threads", -1), ("restart", "max_restarts", -1),
    ("restart", "backoff_seconds", 3601.0), ("restart", "save_budget_seconds", 0.0), ("http", "listen", "9647"),
    ("control", "listen", "0.0.0.0:5555"), ("control", "listen", "tcp://*:5555"), ("control", "listen", "tcp://h"),
    ("log", "level", "loud"), ("log", "interval_seconds", 0.0), ("log", "format", "xml"), ("inject", "allowed", "no"),
]  # fmt: skip

ACCEPTED = [
    ("job", "name", "a"), ("job", "name", "0-" + "a" * 30), ("job", "seed", 0), ("job", "seed", 2**31 - 1),
    ("amp", "min_scale", 2.0**-30), ("amp", "ladder", ["retry", "bfloat16", "float32"]),
    ("amp", "max_fp32_fallbacks", 0), ("optim", "weight_decay", 0), ("optim", "betas", [0, 0.999]),
    ("optim", "min_lr_ratio", 1.0), ("clip", "max_norm", 1e-6), ("checkpoint", "keep", 2), ("http", "listen", "[::1]:0"),
    ("control", "listen", "tcp://0.0.0.0:5555"), ("control", "listen", "tcp://[::]:5555"), ("control", "listen", ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "promised"), PROMISED.items())
def test_amp_defaults_are_as_promised(name: str, promised: Any) -> None:
    """AMPConfig has the fields and defaults of its public contract."""
    assert getattr(AMPConfig(), name) == promised


@pytest.mark.parametrize(("section", "key", "value"), REFUSED)
def test_what_is_out_of_bounds_is_refused_by_key(section: str, key: str, value: Any) -> None:
    """A value that cannot work is refused when the file is read, and the error names its key."""
    with pytest.raises(ConfigError) as refusal:
        job(**{section: {key: value}})

    assert refusal.value.field == f"{section}.{key}"
    assert f"{section}.{key} = " in str(refusal.value)


@pytest.mark.parametrize(("section", "key", "value"), ACCEPTED)
def test_the_bounds_themselves_are_accepted(section: str, key: str, value: Any) -> None:
    """A value at the edge of what is allowed is taken as it is."""
    held = value_of(job(**{section: {key: value}}), f"{section}.{key}")

    assert (list(held) if isinstance(held, tuple) else held) == value


FINITE_ONLY = [
    path for path, key in table().items() if isinstance(key.default, float) or path == "clip.max_norm"
]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("path", [*FINITE_ONLY, "optim.betas"])
def test_a_number_must_be_finite(path: str, number: float) -> None:
    """TOML can write inf and nan; no key takes them."""
    section, key = path.split(".")
    value = [number, 0.9] if path == "optim.betas" else number

    with pytest.raises(ConfigError) as refusal:
        job(**{section: {key: value}})

    assert refusal.value.field == path


def test_a_job_has_one_length() -> None:
    """Windows or epochs: neither says when the job ends, both could contradict each other."""
    for length in ({"windows": None}, {"windows": 1, "epochs": 1}):
        with pytest.raises(ConfigError, match="windows or epochs, and not both"):
            job(job=length)

    assert job(job={"windows": None, "epochs": 2}).job.epochs == 2


def test_the_scale_needs_room() -> None:
    """A floor above the ceiling is refused; a floor at the ceiling pins the scale."""
    with pytest.raises(ConfigError, match=r"above amp.max_scale"):
        job(amp={"min_scale": 8.0, "max_scale": 4.0})

    assert job(amp={"min_scale": 4.0, "max_scale": 4.0}).amp.min_scale == 4.0


def test_configuration_cannot_be_changed_in_place() -> None:
    """A configuration that somebody holds never changes under them."""
    config = job()

    with pytest.raises(AttributeError, match="immutable"):
        config.amp.dtype = "float16"  # type: ignore[misc]  # that it is refused is the point


def test_defaults_are_not_shared_between_jobs() -> None:
    """Options of one job never show up in another."""
    first, second = job(), job()

    first.workload.options["written"] = True

    assert second.workload.options == {}


@pytest.mark.parametrize("section", [AMPConfig, BatchSection, JobConfig])
def test_no_section_takes_an_unknown_key(section: type[Section]) -> None:
    """A key that is not there is an error even where a struct is made by hand."""
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"dtyp": "float16"}, section)
