"""The job file as frozen structs: every section and key, with its bounds, unit and whether it is live.

A key that is `live` may be changed while the job runs (`ampctl set`), and takes effect at a window boundary;
any other key is fixed for the life of a worker and is refused with what to do instead. Configuration is never
mutated: `ampd.core.change` makes the next one from the last. The doc of a key is what `ampctl explain`,
the error messages and the schema of `ampctl hello` show, so it stands here once.

AdamW's default betas and eps are those of torch.optim.AdamW.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from ampd.core.amp import AMPConfig
from ampd.core.group import DistributedSection
from ampd.core.section import Section, fixed, live


class JobSection(Section, frozen=True, kw_only=True):
    name: Annotated[
        str,
        fixed(
            "Names the job's sockets, and the job in metrics.",
            form="at most 32 of a-z, 0-9 and -, the first no -",
            pattern="^[a-z0-9][a-z0-9-]{0,31}$",
        ),
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
    keep_every_windows: Annotated[
        int,
        live("Checkpoints at multiples of this are kept for good besides; 0 for none.", unit="windows", ge=0),
    ] = 0
    keep_best: Annotated[
        int,
        live("So many with the lowest evaluated loss are kept besides; needs evaluate.every_windows.", ge=0),
    ] = 0
    on_disk_error: Annotated[
        Literal["pause", "skip", "abort"],
        live(
            "Where a checkpoint cannot be written: hold until one can, go on without, or end the job as failed."
        ),
    ] = "pause"


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
        float,
        fixed(
            "Wait before the first restart; doubles with each, up to five minutes.",
            unit="seconds",
            ge=0,
            le=3600,
        ),
    ] = 1.0
    save_budget_seconds: Annotated[
        float, fixed("Time that a stopping worker has for its last checkpoint.", unit="seconds", gt=0)
    ] = 60.0


class WatchdogSection(Section, frozen=True, kw_only=True):
    enabled: Annotated[
        bool,
        live("Kill a worker that stands still beyond its budget, and start it again from its checkpoint."),
    ] = True
    factor: Annotated[
        float,
        live("The budget is this many times the longest standstill in the same phase lately.", ge=1, le=1000),
    ] = 10.0
    least_seconds: Annotated[
        float,
        live(
            "No budget is shorter, however quick a phase was lately, save by a bound below.",
            unit="seconds",
            gt=0,
            le=86400,
        ),
    ] = 300.0
    init_seconds: Annotated[
        float, live("Longest budget to load torch, model and checkpoint.", unit="seconds", gt=0, le=604800)
    ] = 1800.0
    compile_seconds: Annotated[
        float,
        live("Longest budget of a first window, after a start or a change.", unit="seconds", gt=0, le=604800),
    ] = 1800.0
    window_seconds: Annotated[
        float, live("Longest budget of a window, its data included.", unit="seconds", gt=0, le=604800)
    ] = 1800.0
    checkpoint_seconds: Annotated[
        float, live("Longest time that the loop may spend on a checkpoint.", unit="seconds", gt=0, le=604800)
    ] = 1800.0
    evaluation_seconds: Annotated[
        float, live("Longest budget of an evaluation.", unit="seconds", gt=0, le=604800)
    ] = 7200.0
    paused_seconds: Annotated[
        float,
        live("Longest time that a paused worker may not look for orders.", unit="seconds", gt=0, le=604800),
    ] = 600.0


class HttpSection(Section, frozen=True, kw_only=True):
    listen: Annotated[
        str,
        fixed(
            "Address of /metrics, /healthz and /readyz; port 0 takes a free one.",
            form="HOST:PORT",
            pattern=r"^\[?[^\s\]]+\]?:\d{1,5}$",
        ),
    ] = "127.0.0.1:9647"


class ControlSection(Section, frozen=True, kw_only=True):
    group: Annotated[
        str, fixed("Unix group whose members may look (role view); empty for the owner only.")
    ] = ""
    listen: Annotated[
        str,
        fixed(
            "TCP address for commands, with events on the next port; needs keys (`ampctl keys`). Empty for none.",
            form="tcp://HOST:PORT",
            pattern=r"^$|^tcp://(\[[^\s\]]+\]|[^\s\[\]:/*]+):\d{1,5}$",
        ),
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
    distributed: DistributedSection = DistributedSection()
    restart: RestartSection = RestartSection()
    watchdog: WatchdogSection = WatchdogSection()
    http: HttpSection = HttpSection()
    control: ControlSection = ControlSection()
    log: LogSection = LogSection()
    inject: InjectSection = InjectSection()
