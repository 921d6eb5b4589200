"""Every metric family that ampd exports, as data: the one table that all else is made from.

The collector fills it, the lint judges it, `explain` and the reference page print it, and a test holds
dashboards and rules to it; so a metric cannot exist in one of those and not in the others. A row per family
rather than a client-library object per metric, because such objects live in a process-wide registry, are
incremented from afar, and cannot say which values their labels may take.

Series are bounded by construction. A label either takes a closed set of values (all of them are there from
the start, at 0; what is unknown counts under `other`, so that sums stay true) or is open up to `at_most`
values, and what comes later is left out and counted. Counters are there from the start, because a series that
appears at 1 has no increase. A gauge that nobody has measured yet is absent where 0 would be a lie
(`from_start` False): a loss of 0 is a figure, and a wrong one.
"""

from __future__ import annotations

import typing

from ampd.core import histogram as bins
from ampd.core import keys, protocol
from ampd.core.activity import Activity
from ampd.core.kept import Basis
from ampd.core.ledger import Cause
from ampd.core.lifecycle import JobState
from ampd.core.phase import Phase
from ampd.core.precision import Precision
from ampd.core.trouble import Trouble
from ampd.telemetry.family import Family, Label, counter, gauge, histogram, info, measured, readable

OTHER = "other"


def _open_set(name: str, *values: str) -> Label:
    """A closed label whose source is a plain word of a report: what is not known is counted as `other`."""
    return Label(name, (*values, OTHER))


def _operations() -> tuple[str, ...]:
    commands = typing.get_args(protocol.AnyCommand)
    return tuple(str(command.__struct_config__.tag) for command in commands)


CAUSE = _open_set("cause", *Cause)
RUNG = _open_set("to", "retry", *Precision)
"""`float16` is no rung of a ladder: it is the window that is run again after a module in it was widened."""
STATISTIC = Label("statistic", ("least", "mean", "greatest"))
RANK = Label("rank", ("0",), at_most=16)  # one host's worth; more ranks need a page of their own

IDENTITY = (
    info("ampd_build_info", "What runs: versions and the device.", "version", "torch_version", "python_version", "accelerator"),
    info("ampd_run_info", "Which run this is; join on instance. run_id differs for every start of the daemon, config_sha256 where"
          " a value of the configuration does that it started with; ampd_config_revision tells of changes since.",
          "run_id", "run_name", "workload", "config_sha256"),
    info("ampd_node_info", "Which node of its job this is; join on instance. A node that follows shows its own ranks and daemon,"
          " its leader the job.", "node", "role", "leader"),
    gauge("ampd_job_state", "1 for the state that the job is in, 0 for the others.", Label("state", tuple(JobState))),
    gauge("ampd_job_state_since_timestamp_seconds", "When the job entered its state.", unit="seconds"),
    gauge("ampd_job_start_timestamp_seconds", "When this daemon started.", unit="seconds"),
    gauge("ampd_config_revision", "Number of the configuration that holds now."),
    gauge("ampd_world_size", "Ranks that train together, as the worker said when it was ready; 0 before."),
    gauge("ampd_ranks_alive", "Ranks that have reported, while the job is running or paused."),
    gauge("ampd_worker_phase", "1 for the phase that the worker has declared last, 0 for the others.",
           Label("phase", tuple(Phase))),
    measured("ampd_worker_heartbeat_timestamp_seconds", "When a rank last said anything.", RANK, unit="seconds"),
)  # fmt: skip

LIFECYCLE = (
    counter("ampd_worker_restarts_total", "Workers that were started again, by what ended the one before.",
             _open_set("reason", "crashed", "killed", "hung", "rank_lost", "rolled_back")),
    counter("ampd_job_state_seconds_total", "Time that the job spent in each state since this daemon started.",
             Label("state", tuple(JobState)), unit="seconds"),
    counter("ampd_config_changes_total", "Accepted changes of configuration, by who made them.",
             _open_set("author", "operator", "policy")),
    counter("ampd_config_reloads_total", "Times that the job file was read again and taken over."),
    counter("ampd_config_reload_failures_total", "Times that the job file was read again and refused; nothing changed."),
    gauge("ampd_config_last_reload_timestamp_seconds", "When the job file was last read again and taken over; 0 for never.",
           unit="seconds"),
    counter("ampd_control_requests_total", "Requests that reached the daemon, by operation.",
             _open_set("op", *_operations())),
    counter("ampd_control_refusals_total", "Requests that were refused, by code.", _open_set("code", *protocol.Code)),
    counter("ampd_events_total", "Events since this daemon started, by how severe they are.",
             _open_set("level", "info", "warning", "error")),
    counter("ampd_events_lost_total", "Events that a worker dropped, since its link was full."),
    counter("ampd_wall_seconds_total", "Time of the step loop, by what it was spent on.",
             _open_set("activity", "train", "data", "evaluate", "checkpoint", "paused", "telemetry"), unit="seconds"),
)  # fmt: skip

PROGRESS = (
    gauge("ampd_window", "Number of the window that comes next: optimizer updates attempted by the job so far."),
    gauge("ampd_window_target", "Windows after which the job is complete."),
    gauge("ampd_epoch", "Epoch that the job is in, from 0."),
    gauge("ampd_last_progress_timestamp_seconds", "When the window number last moved; 0 before the first window.",
           unit="seconds"),
    counter("ampd_samples_processed_total", "Samples in finished windows."),
    counter("ampd_tokens_processed_total", "Tokens in finished windows; 0 where the workload has none."),
    histogram("ampd_window_duration_seconds", "Time of a window, its data included; evaluations, checkpoints and pauses are not."
               " On CUDA with adaptive replay that of the one before it.", bins.WINDOW_SECONDS, "seconds"),
    counter("ampd_windows_sampled_total", "Windows that were looked into, about one a second: those of ampd_sampled_window_seconds_total."),
    counter("ampd_sampled_window_seconds_total", "Time of these windows in rank 0, by what it was spent on, replays included: data is"
            " what was waited for, and on CUDA only what the device did; backward has the exchange of gradients in it, and other"
            " judging, clipping, rewinding and agreement. Divide by ampd_windows_sampled_total for that of a window.",
            Label("activity", tuple(Activity)), unit="seconds"),
    counter("ampd_model_flops_total", "Floating point operations of applied windows, replays left out, by the dtype that they ran in:"
             " matrix products, convolutions and attention, forward and backward, counted in some windows and taken per sample in the"
             " others. 0 for compiled models.", _open_set("dtype", *Precision)),
    measured("ampd_peak_flops_per_second", "What the devices of all ranks do at most in the precision of first attempts, by the data"
              " sheet; for devices that are known."),
    counter("ampd_windows_recomputed_total", "Windows run again after a restart from an earlier checkpoint."),
)  # fmt: skip

GROUP = (
    counter("ampd_rank_work_seconds_total", "Time in which a rank worked on windows and waited for no other, data included: the"
             " rank with most sets the pace. 0 in a job of one process, and under fsdp2, where ranks wait inside every pass.",
             RANK, unit="seconds"),
    counter("ampd_rank_divergence_total", "Comparisons (distributed.check_every_windows) in which some rank had other weights than"
             " the rest."),
)  # fmt: skip

LEDGER = (
    counter("ampd_windows_total", "Windows finished: applied + skipped + quarantined."),
    counter("ampd_windows_applied_total", "Windows whose update reached the weights."),
    counter("ampd_windows_skipped_total", "Windows never applied, by cause.", CAUSE),
    counter("ampd_windows_quarantined_total", "Windows never applied and kept aside for inspection."),
    counter("ampd_windows_low_precision_total", "Windows whose first attempt ran at a low precision."),
    counter("ampd_windows_clipped_total", "Windows whose gradients were scaled down to clip.max_norm."),
    counter("ampd_replays_total", "Attempts of a window after its first: rungs of the ladder, and the same precision again after a module"
             " was widened.", CAUSE, RUNG),
    counter("ampd_fp32_fallbacks_total", "Windows that reached the float32 rung, once each, by cause.", CAUSE),
    gauge("ampd_consecutive_skipped_windows", "Windows never applied since the last one that was."),
    counter("ampd_rollbacks_total", "Times that the run went back to its last checkpoint to pass over a bad window."),
    counter("ampd_modules_widened_total", "Modules that run in float32 since a constant in them does not fit float16."),
    counter("ampd_memory_splits_total", "Times that micro-batches were divided, since the device ran out of memory."),
    counter("ampd_fallback_limit_reached_total", "Times that an epoch passed amp.max_fp32_fallbacks."),
    counter("ampd_loss_nonfinite_total", "Windows of which some attempt had a loss that was not finite."),
    counter("ampd_loss_scale_changes_total", "Moves of the loss scale, by direction.",
             Label("direction", ("growth", "backoff"))),
    counter("ampd_loss_scale_stuck_total", "Times that the loss scale came to its floor and windows were still not finite."),
    counter("ampd_precision_changes_total", "Times that the precision of first attempts changed, by the new one.",
             Label("to", tuple(Precision))),
)  # fmt: skip

LEARNING = (
    measured("ampd_loss", "Loss of the last window whose loss was finite."),
    counter("ampd_loss_sum_total", "Losses of windows, added up where they were finite, those below 0 by their size for themselves: the mean of"
            " a period is the rate of the positive less that of the negative, over that of ampd_loss_windows_total.",
            Label("sign", ("positive", "negative"))),
    counter("ampd_loss_windows_total", "Windows whose loss is in ampd_loss_sum_total."),
    measured("ampd_span_loss", "Loss since the last `ampctl reset stats`, finite windows only.", STATISTIC),
    measured("ampd_grad_norm", "Norm of all gradients of that window, unscaled, before clipping."),
    histogram("ampd_window_grad_norm", "Norms of all gradients, unscaled and before clipping, of every window where they were"
               " finite.", bins.GRAD_NORM),
    measured("ampd_grad_zeros_ratio", "Share of gradients that are 0, in float16 without a loss scale only."
              " Rises where small gradients vanish.", unit="ratio"),
    gauge("ampd_learning_rate", "Learning rate of the last window; 0 before the first."),
    measured("ampd_evaluated_figure", "The workload's own figures on held-out data.", Label("figure", at_most=16)),
    measured("ampd_evaluated_window", "Window before which the figures were taken."),
    measured("ampd_evaluation_duration_seconds", "Duration of the last evaluation.", unit="seconds"),
    measured("ampd_best_evaluated_loss", "Lowest held-out loss that this daemon has seen."),
)  # fmt: skip

PRECISION = (
    gauge("ampd_precision", "1 for the precision of first attempts, 0 for the others.",
           Label("precision", tuple(Precision))),
    gauge("ampd_precision_emulated", "1 where the device only emulates that precision, which costs time."),
    gauge("ampd_tf32_allowed", "1 where float32 operations of an attempt may use TF32."),
    gauge("ampd_loss_scale", "Loss scale of the last window; 0 where the loss is not scaled."),
    gauge("ampd_loss_scale_floor", "amp.min_scale: the scale never falls below this."),
    gauge("ampd_loss_scale_ceiling", "amp.max_scale: the scale never grows above this."),
    measured("ampd_span_loss_scale", "Loss scale since the last `ampctl reset stats`.", STATISTIC),
    gauge("ampd_fallback_limit", "amp.max_fp32_fallbacks: windows per epoch that may fall back."),
)  # fmt: skip

RESOURCES = (
    measured("ampd_memory_bytes", "Memory of a rank, by kind: the allocator's on CUDA, the process's on the CPU.", RANK,
              _open_set("kind", "peak", "allocated", "reserved"), unit="bytes"),
    measured("ampd_memory_limit_bytes", "What a rank may have at most: on CUDA of the device's memory, on the CPU of the machine's or"
              " of its control group's.", RANK, unit="bytes"),
    info("ampd_device_info", "What a rank trains on; join on instance and rank. The device on CUDA, the processor on the CPU, where"
         " capability is what torch uses of it and there is no driver. Memory is all that it has.",
         "device", "capability", "driver", "memory_bytes", of=(RANK,)),
    readable("ampd_processor_energy_joules_total", "Energy that the processors of the daemon's machine took, by package, whoever"
             " used them. No series where the kernel has no counters (/sys/class/powercap) or keeps them from the daemon's user, as"
             " most do for all but root.", Label("package", at_most=8), unit="joules"),
    counter("ampd_allocator_retries_total", "Times that a rank's allocator gave its cache back to the device and asked again, for want"
             " of memory; 0 on the CPU.", RANK),
    counter("ampd_out_of_memory_total", "Times that a rank ran out of memory in a window, and the job went on.", RANK),
    measured("ampd_memory_kept_bytes", "What a micro-batch keeps for its backward pass, at each precision that ran.",
              Label("precision", tuple(Precision)), unit="bytes"),
    measured("ampd_memory_saved_bytes", "What a micro-batch keeps less than in float32, by what that was compared with.",
              _open_set("basis", *typing.get_args(Basis)), unit="bytes"),
    counter("ampd_checkpoints_total", "Checkpoints written and verified."),
    counter("ampd_checkpoint_failures_total", "Checkpoints that could not be written, by reason; the one before stands.",
             Label("reason", tuple(Trouble))),
    counter("ampd_checkpoints_set_aside_total", "Checkpoints found damaged, and renamed."),
    gauge("ampd_checkpoint_interval_windows", "checkpoint.every_windows: windows between checkpoints."),
    gauge("ampd_last_checkpoint_window", "Window of the newest checkpoint: a crash now goes back to here."),
    gauge("ampd_last_checkpoint_timestamp_seconds", "When this daemon last saw one saved; 0 for never.", unit="seconds"),
    gauge("ampd_last_checkpoint_size_bytes", "Size of that checkpoint on disk.", unit="bytes"),
    histogram("ampd_checkpoint_duration_seconds", "Time to write and verify a checkpoint.", bins.CHECKPOINT_SECONDS,
               "seconds"),
    gauge("ampd_last_checkpoint_duration_seconds", "Time to write and verify that checkpoint.", unit="seconds"),
    gauge("ampd_last_checkpoint_stall_seconds", "Time that the step loop waited for that checkpoint.", unit="seconds"),
    counter("ampd_scrapes_total", "Answers to requests for this page."),
    counter("ampd_telemetry_seconds_total", "Time of the daemon that telemetry took: building this page, and sending it."
             " That of the step loop is in ampd_wall_seconds_total.", Label("work", ("build", "serve")), unit="seconds"),
    counter("ampd_daemon_cpu_seconds_total", "Processor time of the daemon, all its threads; the workers' is not in it.",
             unit="seconds"),
    gauge("ampd_daemon_memory_bytes", "Memory of the daemon that is resident now; the workers' is not in it.", unit="bytes"),
    counter("ampd_log_lines_total", "Lines that the daemon wrote to its log, by level.",
             Label("level", ("debug", "info", "warning", "error"))),
    counter("ampd_log_lines_left_out_total", "Lines that it did not write: an event came too often, or the stream took none.",
             Label("reason", ("budget", "stream"))),
    gauge("ampd_telemetry_readings_left_out", "Readings that this page does not show, by reason.",
           Label("reason", ("nonfinite", "bound"))),
)  # fmt: skip

FAMILIES: tuple[Family, ...] = (
    IDENTITY + LIFECYCLE + PROGRESS + GROUP + LEDGER + LEARNING + PRECISION + RESOURCES
)


def family(name: str) -> Family:
    """The family of that name; raises KeyError with the nearest name where there is none."""
    found = {f.name: f for f in FAMILIES}
    if name not in found:
        raise KeyError(f"{name!r} is not a metric of ampd{keys.did_you_mean(name, found)}")
    return found[name]
