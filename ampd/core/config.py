"""The job file as frozen structs: every section and key, with its bounds, unit and whether it is live.

A key that is `live` may be changed while the job runs (`ampctl set`), and takes effect at a window boundary;
any other key is fixed for the life of a worker and is refused with what to do instead. Configuration is never
mutated: `ampd.core.change` makes the next one from the last. The doc of a key is what `ampctl get --schema`,
the error messages and the reference page show, so it stands here once.

Defaults that come from elsewhere: the scaler's (65536, 2, 0.5, 2000) are those of torch.amp.GradScaler; AdamW's
betas and eps are those of torch.optim.AdamW.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta


def live(doc: str, *, unit: str = "", **bounds: Any) -> Meta:
    """Describe a key that can be changed while the job runs."""
    return Meta(description=doc, extra={"live": True, "unit": unit}, **bounds)


def fixed(doc: str, *, unit: str = "", **bounds: Any) -> Meta:
    """Describe a key that only a restart of the job changes."""
    return Meta(description=doc, extra={"live": False, "unit": unit}, **bounds)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the job file: frozen, keyword-only, and no key is ever silently ignored."""


class JobSection(Section, frozen=True, kw_only=True):
    name: Annotated[
        str, fixed("Names the job's sockets, and the job in metrics.", pattern="^[a-z0-9][a-z0-9-]{0,31}$")
    ]
    directory: Annotated[
        str,
        fixed(
            "Holds checkpoints, journal and losses.jsonl; relative to the current directory.", min_length=1
        ),
    ]
    seed: Annotated[int, fixed("Seeds weights, dropout and the data order.", ge=0, lt=2**31)] = 1
    windows: (
        Annotated[
            int,
            fixed("The job is complete after so many windows; give this or epochs.", unit="windows", ge=1),
        ]
        | None
    ) = None
    epochs: (
        Annotated[
            int, fixed("The job is complete after so many epochs; give this or windows.", unit="epochs", ge=1)
        ]
        | None
    ) = None
    on_finish: Annotated[
        Literal["exit", "hold"],
        fixed("exit: end with the job. hold: keep serving metrics and commands until stopped."),
    ] = "exit"


class WorkloadSection(Section, frozen=True, kw_only=True):
    name: Annotated[
        str, fixed("Entry point of the workload plugin; `ampd plugins` lists them.", min_length=1)
    ]
    options: Annotated[dict[str, Any], fixed("The plugin's own options.")] = {}


class PipelineSection(Section, frozen=True, kw_only=True):
    stages: Annotated[
        tuple[str, ...],
        fixed("Stages of the step, by entry point; their slots give the order, not this list."),
    ] = ("stats", "clip", "fallback", "scaler", "autocast")
    options: Annotated[
        dict[str, dict[str, Any]], fixed("Options of stages, one table for each: [pipeline.options.NAME].")
    ] = {}


class BatchSection(Section, frozen=True, kw_only=True):
    size: Annotated[int, fixed("Samples in a micro-batch.", unit="samples", ge=1)] = 32
    accumulate: Annotated[
        int, fixed("Micro-batches in a window, that is, in an optimizer update.", unit="micro-batches", ge=1)
    ] = 1


class AMPConfig(Section, frozen=True, kw_only=True):
    """Mixed precision: what a window is attempted at, how its loss is scaled, and what a bad window leads to."""

    enabled: Annotated[bool, live("False trains in float32.")] = True
    dtype: Annotated[
        Literal["auto", "float16", "bfloat16", "float32"],
        live(
            "Precision of the first attempt; auto takes what the device does natively, the widest range first."
        ),
    ] = "auto"
    require_native: Annotated[bool, live("Refuse a dtype that the device only emulates.")] = False
    init_scale: Annotated[float, fixed("Loss scale that float16 starts with.", gt=0, le=2.0**40)] = 65536.0
    growth_factor: Annotated[
        float, live("Scale grows by this factor after growth_interval good windows.", gt=1, le=65536)
    ] = 2.0
    backoff_factor: Annotated[float, live("Scale shrinks by this factor on a bad window.", gt=0, lt=1)] = 0.5
    growth_interval: Annotated[
        int, live("Good windows in a row before the scale grows.", unit="windows", ge=1)
    ] = 2000
    min_scale: Annotated[float, live("The scale never falls below this.", gt=0, le=2.0**40)] = 1.0
    max_scale: Annotated[float, live("The scale never grows above this.", gt=0, le=2.0**40)] = 2.0**24
    hysteresis: Annotated[
        int, live("Bad windows, not necessarily in a row, before the scale backs off.", unit="windows", ge=1)
    ] = 1
    overflow_tolerance: Annotated[
        float,
        live(
            "Share of bad windows since the scale last moved that is put up with before it backs off.",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    scale_loss: Annotated[
        bool, live("False leaves the float16 loss unscaled: small gradients may vanish.")
    ] = True
    enable_gradient_scaling: Annotated[
        bool, live("False switches the scaler off altogether; the guard stays.")
    ] = True
    enable_tf32: Annotated[
        bool, live("TF32 in float32 operations of an attempt; a fallback is always true float32.")
    ] = True
    enable_cudnn_benchmark: Annotated[bool, live("Let cuDNN time its algorithms once per input shape.")] = (
        True
    )
    enable_fallback_to_fp32: Annotated[
        bool, live("Replay a bad window at the ladder's rungs instead of skipping it.")
    ] = True
    ladder: Annotated[
        tuple[Literal["retry", "bfloat16", "float32"], ...],
        live("Rungs that a bad window is replayed at, in this order.", min_length=1, max_length=3),
    ] = ("float32",)
    replay: Annotated[
        Literal["auto", "sync", "adaptive"],
        live(
            "sync: judge each window before the next, one host read. adaptive: none in calm windows, a bad one is replayed one later. auto: adaptive on CUDA with a fused optimizer, else sync."
        ),
    ] = "auto"
    risky_windows: Annotated[
        int,
        live(
            "In adaptive: windows judged at once after start, resume, change, trouble and growth of the scale; 0 for none.",
            unit="windows",
            ge=0,
        ),
    ] = 16
    max_fp32_fallbacks: Annotated[
        int, live("Windows per epoch that may fall back before on_fallback_limit acts.", unit="windows", ge=0)
    ] = 10
    on_fallback_limit: Annotated[
        Literal["warn", "raise_dtype", "pause", "abort"],
        live("What happens, once an epoch, when the limit is passed."),
    ] = "warn"
    on_bad_window: Annotated[
        Literal["skip", "quarantine", "rollback", "pause", "abort"],
        live(
            "What happens after a window that is not finite even in float32; it is never applied. rollback: also go "
            "back to the last checkpoint and pass over it on the way."
        ),
    ] = "skip"
    track_amp_stats: Annotated[bool, live("Keep the ledger's span of scale and memory figures.")] = True
    enable_amp_memory_pooling: Annotated[
        bool,
        fixed("Cap the CUDA memory of the process at amp_memory_fraction; not an AMP feature, but named so."),
    ] = False
    amp_memory_fraction: Annotated[
        float,
        fixed("Share of the device's memory that the process may take, where the cap is on.", gt=0, le=1),
    ] = 0.9
    clear_gradients_after_step: Annotated[
        bool, live("Free gradients after each update; else they stay until the next backward.")
    ] = True
    sync_batch_norm: Annotated[
        bool, fixed("Convert BatchNorm to SyncBatchNorm; only with more than one process.")
    ] = False
    sync_across_gpus: Annotated[
        bool, fixed("All processes judge a window together; cannot be off, or they would diverge.")
    ] = True
    enable_distributed_accumulation: Annotated[
        bool, fixed("Accumulate without communication until a window's last micro-batch.")
    ] = True


class OptimSection(Section, frozen=True, kw_only=True):
    name: Annotated[Literal["adamw", "sgd"], fixed("The optimizer.")] = "adamw"
    lr: Annotated[float, live("Peak learning rate.", gt=0, le=100)] = 1e-3
    weight_decay: Annotated[
        float, live("Decoupled weight decay (adamw) or L2 penalty (sgd); matrices only.", ge=0, le=10)
    ] = 0.01
    betas: Annotated[
        tuple[Annotated[float, Meta(ge=0, lt=1)], Annotated[float, Meta(ge=0, lt=1)]],
        fixed("AdamW's averaging coefficients."),
    ] = (0.9, 0.999)
    eps: Annotated[float, fixed("AdamW's denominator term.", gt=0)] = 1e-8
    momentum: Annotated[float, fixed("SGD's momentum.", ge=0, lt=1)] = 0.9
    fused: Annotated[bool, fixed("Use the fused kernel, which the guard can gate on the device.")] = True
    schedule: Annotated[Literal["cosine", "constant"], live("Shape of the learning rate after warm-up.")] = (
        "cosine"
    )
    warmup_windows: Annotated[
        int, live("Applied updates over which the rate rises linearly from 0.", unit="windows", ge=0)
    ] = 0
    min_lr_ratio: Annotated[float, live("The cosine ends at this fraction of lr.", ge=0, le=1)] = 0.1


class ClipSection(Section, frozen=True, kw_only=True):
    max_norm: Annotated[float, live("Gradients are scaled down to this total norm.", gt=0)] | None = None


class CheckpointSection(Section, frozen=True, kw_only=True):
    every_windows: Annotated[int, live("Windows between checkpoints.", unit="windows", ge=1)] = 500
    keep: Annotated[
        int, live("Checkpoints kept; at least two, so that a damaged one has a predecessor.", ge=2)
    ] = 3


class EvaluateSection(Section, frozen=True, kw_only=True):
    every_windows: Annotated[
        int,
        live("Windows between evaluations, where the workload has one; 0 for none.", unit="windows", ge=0),
    ] = 0


class DeviceSection(Section, frozen=True, kw_only=True):
    type: Annotated[
        Literal["auto", "cpu", "cuda"], fixed("Where to train; auto takes CUDA where there is a device.")
    ] = "auto"
    threads: Annotated[
        int,
        fixed("CPU threads of the worker; 0 leaves it to torch. Exact resume needs the same number.", ge=0),
    ] = 0
    deterministic: Annotated[bool, fixed("Refuse kernels whose result depends on the order of threads.")] = (
        False
    )


class RestartSection(Section, frozen=True, kw_only=True):
    max_restarts: Annotated[
        int, fixed("Crashes in a row without a new checkpoint before the job has failed.", ge=0)
    ] = 3
    backoff_seconds: Annotated[
        float, fixed("Wait before the first restart; doubles with each.", unit="seconds", ge=0, le=3600)
    ] = 1.0
    save_budget_seconds: Annotated[
        float, fixed("Time that a stopping worker has for its last checkpoint.", unit="seconds", gt=0)
    ] = 60.0


class HttpSection(Section, frozen=True, kw_only=True):
    listen: Annotated[
        str,
        fixed(
            "Address of /metrics, /healthz and /readyz; port 0 takes a free one.",
            pattern=r"^\[?[^\s\]]+\]?:\d{1,5}$",
        ),
    ] = "127.0.0.1:9647"


class ControlSection(Section, frozen=True, kw_only=True):
    group: Annotated[
        str, fixed("Unix group whose members may look (role view); empty for the owner only.")
    ] = ""


class LogSection(Section, frozen=True, kw_only=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], live("Least severe event that is logged.")
    ] = "info"
    interval_seconds: Annotated[float, live("Time between two canonical lines.", unit="seconds", ge=0.1)] = (
        10.0
    )
    format: Annotated[
        Literal["auto", "json", "terminal"],
        fixed("auto: a progress bar on a terminal, JSON lines elsewhere."),
    ] = "auto"


class InjectSection(Section, frozen=True, kw_only=True):
    allowed: Annotated[
        bool, fixed("Allow `ampctl inject`, which rehearses faults; leave it off in real runs.")
    ] = False


class JobConfig(Section, frozen=True, kw_only=True):
    """A whole job file."""

    job: JobSection
    workload: WorkloadSection
    pipeline: PipelineSection = PipelineSection()
    batch: BatchSection = BatchSection()
    amp: AMPConfig = AMPConfig()
    optim: OptimSection = OptimSection()
    clip: ClipSection = ClipSection()
    checkpoint: CheckpointSection = CheckpointSection()
    evaluate: EvaluateSection = EvaluateSection()
    device: DeviceSection = DeviceSection()
    restart: RestartSection = RestartSection()
    http: HttpSection = HttpSection()
    control: ControlSection = ControlSection()
    log: LogSection = LogSection()
    inject: InjectSection = InjectSection()
