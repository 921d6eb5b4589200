"""Where the time and the memory go: speed, goodput, work that was done twice, memory by rank, checkpoints.

Goodput is training time per time in which the job was meant to train, counted from outside: a second in which the worker
is down, starts, saves or waits for data is a second without training, so nothing has to be subtracted and nothing can be
forgotten. A pause that somebody asked for is not counted.
"""

from __future__ import annotations

from typing import Any

from grafana.generate import queries as q
from grafana.generate.frame import dashboard
from grafana.generate.panels import BAD, OK, WARN, Column, Section, bars, heat, series, stacked, stat, table

_WASTE = ((None, OK), (0.1, WARN), (0.3, BAD))
_PEAK = q.now("ampd_memory_bytes", 'kind="peak"')
_RANK = 'rank=~"$rank"'


def performance() -> dict[str, Any]:
    """The dashboard as plain data."""
    return dashboard(
        uid="ampd-performance",
        title="Performance and goodput",
        description="How fast a job is, what its time goes to, what is done twice, and what memory and checkpoints cost.",
        sections=[_now(), _speed(), _work(), _ranks(), _time(), _memory(), _checkpoints(), _machine()],
    )


def _now() -> Section:
    return Section("Now", [
        stat("Windows/s", "Optimizer updates attempted a second. ampd_windows_total", (q.rate("ampd_windows_total"), "{{instance}}"), "none",
             options={"graphMode": "area"}),
        stat("Samples/s", "ampd_samples_processed_total", (q.rate("ampd_samples_processed_total"), "{{instance}}"), "short",
             options={"graphMode": "area"}),
        stat("Tokens/s", "0 for workloads without tokens. ampd_tokens_processed_total",
             (q.rate("ampd_tokens_processed_total"), "{{instance}}"), "short", options={"graphMode": "area"}),
        stat("Goodput now", "Seconds of training in a second in which the job was meant to train. "
             "ampd_wall_seconds_total / ampd_job_state_seconds_total",
             (q.GOODPUT, "{{instance}}"), "percentunit", steps=((None, BAD), (0.7, WARN), (0.9, OK))),
        stat("Waiting for data", "Share of the step loop's time. ampd_wall_seconds_total", (_of_loop("data"), "{{instance}}"), "percentunit",
             steps=_WASTE),
        stat("Attempts/window", "1 where nothing is replayed; each replay of a window is one more. "
             "ampd_replays_total, ampd_windows_total", (f"1 + {q.per_window('ampd_replays_total')}", "{{instance}}"), "none",
             steps=((None, OK), (1.02, WARN), (1.1, BAD)), defaults={"decimals": 2}),
        stat("Windows run again", "In this period, because a restart went back to a checkpoint. ampd_windows_recomputed_total",
             (q.in_period("ampd_windows_recomputed_total"), "{{instance}}"), "none", steps=((None, OK), (1, WARN)),
             defaults={"decimals": 0}),
        stat("Peak memory", "Of the rank that has most. ampd_memory_bytes",
             (f"max by (job, instance) ({_PEAK})", "{{instance}}"), "bytes"),
    ])  # fmt: skip


def _of_rank(expr: str) -> str:
    return f"max by (job, instance, rank) ({expr})"


def _of_loop(activity: str) -> str:
    part = q.summed(q.rate("ampd_wall_seconds_total", f'activity="{activity}"'))
    return q.share(part, q.summed(q.rate("ampd_wall_seconds_total")))


def _speed() -> Section:
    train = q.summed(q.rate("ampd_wall_seconds_total", 'activity=~"train|data"'))
    return Section("Speed", [
        series("Windows", "Optimizer updates attempted a second: a step down after a change of precision or data is seen here first. "
               "ampd_windows_total", [(q.rate("ampd_windows_total"), "{{instance}}")], "ops"),
        series("Time of a window", "Training and waiting for data, for each window; replays included. "
               "ampd_wall_seconds_total / ampd_windows_total",
               [(q.share(train, q.summed(q.rate("ampd_windows_total"))), "{{instance}}")], "s"),
        series("Samples and tokens", "A second. ampd_samples_processed_total, ampd_tokens_processed_total",
               [(q.rate("ampd_samples_processed_total"), "samples {{instance}}"),
                (f"{q.rate('ampd_tokens_processed_total')} > 0", "tokens {{instance}}")], "ops"),
        stacked("Within a window", "What the time of one window goes to, from about one window a second that is looked into; on CUDA as the "
                "device has it, where data is what it waited for. Replays are in it. "
                "ampd_sampled_window_seconds_total / ampd_windows_sampled_total", [(_within(), "{{activity}} {{instance}}")], "s",
                defaults={"min": 0}),
        heat("Window times", "How long each window took, its data included; a second band is replays, evaluation of a slow batch or "
             "another user of the machine. ampd_window_duration_seconds", q.buckets("ampd_window_duration_seconds"), "s"),
        series("Slowest windows", "What half, nine of ten and ninety-nine of a hundred windows did not exceed. "
               "ampd_window_duration_seconds",
               [(q.quantile(0.5, "ampd_window_duration_seconds"), "half {{instance}}"),
                (q.quantile(0.9, "ampd_window_duration_seconds"), "90 % {{instance}}"),
                (q.quantile(0.99, "ampd_window_duration_seconds"), "99 % {{instance}}")], "s"),
    ])  # fmt: skip


def _within() -> str:
    """Seconds of one window by activity; both rates are of the windows that were sampled."""
    spent = q.summed(q.rate("ampd_sampled_window_seconds_total"), "activity")
    return q.among(spent, q.summed(q.rate("ampd_windows_sampled_total")))


def _work() -> Section:
    done = q.summed(q.rate("ampd_model_flops_total"))
    low = q.summed(q.rate("ampd_model_flops_total", 'dtype=~"float16|bfloat16"'))
    return Section("Work", [
        stacked("Work by dtype", "Floating point operations a second, by the dtype that they really ran in: what autocast keeps in float32 "
                "is float32 here, too. Replays are left out. ampd_model_flops_total",
                [(q.summed(q.rate("ampd_model_flops_total"), "dtype"), "{{dtype}} {{instance}}")], "flops"),
        series("Work in low precision", "Share of the operations that ran in 16 bits: far below 100 % in float16 or bfloat16, and much of "
               "the model does not use what the device is fast at. ampd_model_flops_total",
               [(q.share(low, done), "{{instance}}")], "percentunit", defaults={"min": 0, "max": 1}),
        series("Model FLOPs utilisation", "Of what the devices do at most in the precision of first attempts; nothing where that is not "
               "known. ampd_model_flops_total / ampd_peak_flops_per_second",
               [(q.share(done, q.summed(q.now("ampd_peak_flops_per_second"))), "{{instance}}")], "percentunit",
               defaults={"min": 0, "max": 1}),
    ])  # fmt: skip


def _in_group(expr: str) -> str:
    """What is by rank, in jobs that have several."""
    return f"{expr} and on (job, instance) ({q.now('ampd_world_size')} > 1)"


def _ranks() -> Section:
    return Section("Ranks", [
        series("Work by rank", "Seconds a second in which a rank waited for no other: the one with most sets the pace. Nothing in a job of "
               "one process. ampd_rank_work_seconds_total, ampd_world_size",
               [(_in_group(q.rate("ampd_rank_work_seconds_total", _RANK)), "rank {{rank}} {{instance}}")], "percentunit", width=16),
        series("Ranks apart", "Comparisons in which a rank had other weights than the rest, where they were made. "
               "ampd_rank_divergence_total", [(q.increase("ampd_rank_divergence_total"), "{{instance}}")], defaults={"min": 0}),
    ])  # fmt: skip


def _time() -> Section:
    return Section("Where time goes", [
        series("Goodput", "Seconds of training in a second in which the job was meant to train; what is missing to 100 % is in the panels "
               "beside it. The line is where AmpdGoodputLow begins. ampd_wall_seconds_total / ampd_job_state_seconds_total",
               [(q.GOODPUT, "{{instance}}")], "percentunit", defaults={"min": 0, "max": 1},
               steps=((None, BAD), (0.8, OK)), custom={"thresholdsStyle": {"mode": "dashed"}}),
        stacked("Time by activity", "What a second of clock time goes to; a gap to 100 % is a worker that was starting or down. "
                "ampd_wall_seconds_total",
                [(q.summed(q.rate("ampd_wall_seconds_total"), "activity"), "{{activity}} {{instance}}")], "percentunit",
                defaults={"min": 0}),
        bars("Seconds in this period", "Of the step loop, by activity. ampd_wall_seconds_total",
             [(f"sum by (activity) ({q.in_period('ampd_wall_seconds_total')}) > 0", "{{activity}}")], "s"),
        bars("Time by state", "Of the daemon in this period: what is not running is lost to training. ampd_job_state_seconds_total",
             [(f"sum by (state) ({q.in_period('ampd_job_state_seconds_total')}) > 0", "{{state}}")], "s"),
        stacked("Work done twice or in vain", "Windows a second: replayed, lost, or run again after a restart. "
                "ampd_replays_total, ampd_windows_skipped_total, ampd_windows_quarantined_total, ampd_windows_recomputed_total",
                [(q.summed(q.rate("ampd_replays_total")), "replayed {{instance}}"),
                 (q.LOST, "lost {{instance}}"),
                 (q.rate("ampd_windows_recomputed_total"), "run again {{instance}}")], "ops"),
        series("Evaluation time", "Of the last evaluation on held-out data. ampd_evaluation_duration_seconds",
               [(q.now("ampd_evaluation_duration_seconds"), "{{instance}}")], "s", defaults={"min": 0}),
    ])  # fmt: skip


def _memory() -> Section:
    return Section("Memory", [
        series("Memory by rank", "The allocator's on CUDA, the process's on the CPU. ampd_memory_bytes",
               [(q.now("ampd_memory_bytes", _RANK), "{{kind}} rank {{rank}} {{instance}}")], "bytes", width=12),
        series("Memory kept and saved", "What a micro-batch keeps for its backward pass at each precision, and how much less that is "
               "than in float32. ampd_memory_kept_bytes, ampd_memory_saved_bytes",
               [(q.now("ampd_memory_kept_bytes"), "kept in {{precision}} {{instance}}"),
                (q.now("ampd_memory_saved_bytes"), "saved against a {{basis}} {{instance}}")], "bytes", width=12),
        series("Share of the memory limit", "The most that a rank held, of what it may have. The line is where AmpdDeviceMemoryNearLimit looks "
               "at retries. ampd_memory_bytes / ampd_memory_limit_bytes",
               [(q.share(_of_rank(q.now("ampd_memory_bytes", f'kind=~"peak|reserved", {_RANK}')),
                         _of_rank(q.now("ampd_memory_limit_bytes", _RANK))), "rank {{rank}} {{instance}}")], "percentunit",
               width=12, defaults={"min": 0, "max": 1}, steps=((None, OK), (0.97, BAD)),
               custom={"thresholdsStyle": {"mode": "dashed"}}),
        series("Shortages of memory", "At the sample after they happened: the allocator gave its cache back to the device and asked again, "
               "which waits for the device, or memory ran out all the same. ampd_allocator_retries_total, ampd_out_of_memory_total",
               [(q.increase("ampd_allocator_retries_total", _RANK), "asked again, rank {{rank}} {{instance}}"),
                (q.increase("ampd_out_of_memory_total", _RANK), "ran out, rank {{rank}} {{instance}}")], "none", width=12,
               defaults={"min": 0}, custom={"drawStyle": "bars", "fillOpacity": 60}),
    ])  # fmt: skip


def _checkpoints() -> Section:
    return Section("Checkpoints", [
        series("Checkpoint time", "Of the last one: in all, and how long the step loop waited for it. "
               "ampd_last_checkpoint_duration_seconds, ampd_last_checkpoint_stall_seconds",
               [(q.now("ampd_last_checkpoint_duration_seconds"), "in all {{instance}}"),
                (q.now("ampd_last_checkpoint_stall_seconds"), "loop waited {{instance}}")], "s"),
        series("Checkpoint size", "Of the last one, on disk. ampd_last_checkpoint_size_bytes",
               [(f"{q.now('ampd_last_checkpoint_size_bytes')} > 0", "{{instance}}")], "bytes", defaults={"min": 0}),
        series("Windows at risk", "What a crash now would run again, and the interval between checkpoints. "
               "ampd_window, ampd_last_checkpoint_window, ampd_checkpoint_interval_windows",
               [(q.AT_RISK, "at risk {{instance}}"),
                (q.now("ampd_checkpoint_interval_windows"), "interval {{instance}}")]),
    ])  # fmt: skip


def _machine() -> Section:
    of_device = "max by (instance, rank, device, capability, driver)"
    return Section("Machine", [
        table("Devices", "What each rank trains on. ampd_device_info", [
            Column(name="Address", label="instance"), Column(name="Rank", label="rank"), Column(name="Device", label="device"),
            Column(name="Capability", label="capability"), Column(name="Driver", label="driver"),
            Column(expr=f"{of_device}({q.now('ampd_device_info', _RANK)})"),
        ], width=16, height=6),
        series("Power of processors", "What the processors of the daemon's machine take, whoever uses them; nothing where the kernel keeps "
               "that to itself. ampd_processor_energy_joules_total",
               [(q.rate("ampd_processor_energy_joules_total"), "package {{package}} {{instance}}")], "watt", height=6,
               defaults={"min": 0}),
    ])  # fmt: skip
