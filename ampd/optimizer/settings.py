"""What a user's own loop asks of the engine, and the job configuration that it amounts to. Loads no torch.

The engine reads one kind of configuration, `JobConfig`; so the settings of a loop become one, whose sections that only
a daemon acts on keep their defaults. msgspec checks no struct that is built by its constructor, so everything is
converted, and thereby checked, here.

What a library cannot do is refused rather than ignored: it has no job directory to quarantine a window in or to roll
back to, must not hold its caller (`pause`), and returns the verdict of this step, so it cannot judge a window late.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ampd.core import change, keys
from ampd.core.amp import AMPConfig
from ampd.core.change import Difference
from ampd.core.config import JobConfig
from ampd.errors import ConfigError

OWN_SECTIONS = ("amp.", "clip.", "log.")
"""Keys that mean something under a user's own loop; optimizer, schedule, data and checkpoints are the loop's."""
_JOB = {"job": {"name": "own-loop", "directory": ".", "windows": 1}, "workload": {"name": "own-loop"}}
_UNFIT = {
    "on_bad_window": {"quarantine": "has no job directory", "rollback": "has no checkpoints", "pause": "holds nobody"},
    "on_fallback_limit": {"pause": "holds nobody"},
    "replay": {"adaptive": "returns the verdict of this very step"},
}  # fmt: skip


class OptimizationLevel(enum.StrEnum):
    """A preset of AMPConfig, as `ampctl preset` has them."""

    BASIC = "basic"  # AMP off
    ADVANCED = "advanced"  # float16 with loss scaling
    ULTRA = "ultra"  # bfloat16, and a low limit of fallbacks


class PerformanceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a loop's steps are run. An explicit `amp_config` beats the level."""

    level: OptimizationLevel = OptimizationLevel.ADVANCED
    amp_config: AMPConfig | None = None
    gradient_accumulation_steps: Annotated[int, Meta(ge=1)] = 1
    """Calls of `training_step` in a window, that is, in an optimizer update."""
    max_grad_norm: Annotated[float, Meta(gt=0)] | None = None
    """Gradients are scaled down to this total norm; None leaves them."""


def checked(config: PerformanceConfig) -> PerformanceConfig:
    """The same settings, typed as declared; raises ConfigError with the field that is wrong."""
    if not isinstance(config, PerformanceConfig):
        raise ConfigError(f"the configuration is a {type(config).__name__}, expected a PerformanceConfig")
    fields = msgspec.structs.asdict(config)
    amp = fields.pop("amp_config")
    try:
        typed = msgspec.convert(fields, PerformanceConfig)
    except msgspec.ValidationError as error:
        field = str(error).rpartition("$.")[2].rstrip("`")
        raise ConfigError(
            f"PerformanceConfig.{field} = {fields.get(field)!r}: {str(error).partition(' - at')[0]}",
            field=field,
        ) from None
    return msgspec.structs.replace(typed, amp_config=amp)


def job_of(config: PerformanceConfig) -> JobConfig:
    """The job configuration that checked settings amount to; raises ConfigError with the field that is wrong."""
    amp = config.amp_config
    given = _fields_of_level(config.level) if amp is None else fields_of(amp)
    document = {
        **_JOB,
        "amp": given | {"replay": "sync" if given.get("replay", "auto") == "auto" else given["replay"]},
        "batch": {"accumulate": config.gradient_accumulation_steps},
        "clip": {"max_norm": config.max_grad_norm},
    }
    job = change.build(document, where="AMPConfig")
    refuse_unfit(job.amp)
    return job


def fields_of(amp: AMPConfig) -> dict[str, Any]:
    """The fields of an AMPConfig, not checked; raises ConfigError where it is none."""
    if not isinstance(amp, AMPConfig):
        raise ConfigError(f"amp_config is a {type(amp).__name__}, expected an AMPConfig", field="amp_config")
    return msgspec.structs.asdict(amp)


def changes_to(job: JobConfig, amp: AMPConfig) -> dict[str, Any]:
    """What makes the AMP settings of `job` those of `amp`; raises ConfigError where they are wrong or fixed."""
    wanted = job_of(PerformanceConfig(amp_config=amp)).amp
    moved = change.differences(job, msgspec.structs.replace(job, amp=wanted))
    for difference in moved:
        if not keys.table()[difference.key].live:
            raise ConfigError(
                f"{difference} cannot be changed while steps are run", field=difference.key,
                hint="give it to create_performance_optimizer, and use the new one from here on",
            )  # fmt: skip
    return {difference.key: difference.new for difference in moved}


def refuse_unfit(amp: AMPConfig) -> None:
    """Raise ConfigError where a value asks for what only a daemon's job has."""
    for name, unfit in _UNFIT.items():
        value = getattr(amp, name)
        if value in unfit:
            raise ConfigError(
                f"amp.{name} = {value!r}: a step in a user's own loop {unfit[value]}",
                field=f"amp.{name}",
                hint="leave it out, or run the training as a job of `ampd start`",
            )


def refuse_foreign(moved: tuple[Difference, ...]) -> None:
    """Raise ConfigError where a change is about what belongs to the user's loop, and would do nothing."""
    for difference in moved:
        if not difference.key.startswith(OWN_SECTIONS):
            raise ConfigError(
                f"{difference.key} belongs to the loop that the training runs in", field=difference.key,
                hint="change it in that program; here amp.*, clip.max_norm and log.* can be changed",
            )  # fmt: skip


def _fields_of_level(level: OptimizationLevel) -> dict[str, Any]:
    return {path.removeprefix("amp."): value for path, value in change.preset(level).items()}
