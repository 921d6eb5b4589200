"""The `[amp]` table: precision, loss scale, guard and ladder.

Defaults that come from elsewhere: the scaler's (65536, 2, 0.5, 2000) are those of torch.amp.GradScaler. The floor of
1 is for the reason given in `engine.scale`; the ceiling of 2**24 is where float32 stops holding every integer.
"""

from __future__ import annotations

from typing import Annotated, Literal

from ampd.core.section import Section, fixed, live


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
