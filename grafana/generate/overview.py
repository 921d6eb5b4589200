"""The dashboard that one looks at first: is the job well, and what is precision doing?"""

from __future__ import annotations

from typing import Any

from grafana.generate import queries as q
from grafana.generate.frame import dashboard
from grafana.generate.panels import BAD, OK, WARN, Section, phases, series, stacked, stat, timeline, word


def overview() -> dict[str, Any]:
    """The dashboard as plain data."""
    return dashboard(
        uid="ampd-overview",
        title="Overview",
        description="One or several ampd jobs: progress, learning, what precision does and costs, what a crash would lose.",
        sections=[_now(), _learning(), _precision(), _throughput(), _safety(), _operations()],
    )


def _now() -> Section:
    ages = ((None, OK), (60, WARN), (300, BAD))
    return Section("Now", [
        word("State", "The state of the job. ampd_job_state", (f"{q.now('ampd_job_state')} == 1", "{{state}}")),
        word("Precision", "What windows are first attempted at. ampd_precision",
             (f"{q.now('ampd_precision')} == 1", "{{precision}}")),
        stat("Progress", "Windows done, of all. ampd_window / ampd_window_target", (q.PROGRESS, "{{instance}}"), "percentunit"),
        stat("Time left", "Windows to go at the present speed. ampd_window_target, ampd_window, ampd_windows_total",
             (q.TIME_LEFT, "{{instance}}"), "s"),
        stat("Last window", "Time since the window number moved; a pause stops it too. ampd_last_progress_timestamp_seconds",
             (q.LAST_WINDOW_AGE, "{{instance}}"), "s", steps=ages),
        stat("Fallbacks", "Share of windows that ran again in float32. ampd_fp32_fallbacks_total / ampd_windows_total",
             (q.per_window("ampd_fp32_fallbacks_total"), "{{instance}}"), "percentunit",
             steps=((None, OK), (0.02, WARN), (0.1, BAD))),
        stat("Skips", "Share of windows that were never applied. "
             "ampd_windows_skipped_total, ampd_windows_quarantined_total / ampd_windows_total",
             (q.LOST_SHARE, "{{instance}}"), "percentunit", steps=((None, OK), (0.001, WARN), (0.01, BAD))),
        stat("Alerts", "Alerts of ampd that are firing. ALERTS",
             (f"count({q.ALERTS}) or vector(0)", "firing"), steps=((None, OK), (1, BAD))),
    ])  # fmt: skip


def _learning() -> Section:
    return Section("Learning", [
        series("Loss", "Loss of the last window, the mean of all windows between two samples, and that since the last reset of statistics. "
               "ampd_loss, ampd_loss_sum_total / ampd_loss_windows_total, ampd_span_loss",
               [(q.now("ampd_loss"), "last {{instance}}"), (q.MEAN_LOSS, "between {{instance}}"),
                (q.now("ampd_span_loss", 'statistic="mean"'), "mean {{instance}}")], width=6),
        series("Held-out figures", "What the workload measures on data that it does not train on. ampd_evaluated_figure",
               [(q.now("ampd_evaluated_figure"), "{{figure}} {{instance}}")], width=6),
        series("Gradient norm", "Unscaled, before clipping, on a logarithmic scale. ampd_grad_norm",
               [(q.now("ampd_grad_norm"), "{{instance}}")], width=6,
               custom={"scaleDistribution": {"type": "log", "log": 10}}),
        series("Learning rate", "Of the last window. ampd_learning_rate",
               [(f"{q.now('ampd_learning_rate')} > 0", "{{instance}}")], "sci", width=6),
    ])  # fmt: skip


def _precision() -> Section:
    return Section("Precision", [
        phases("Precision over time", "Precision of first attempts: each change is an operator's or a policy's. ampd_precision",
               (q.PRECISIONS, "{{instance}}"), [*q.PRECISION_COLORS.items()], width=12, height=6),
        series("Loss scale", "Powers of two between its floor and its ceiling; nothing while the loss is not scaled. "
               "ampd_loss_scale, ampd_loss_scale_floor, ampd_loss_scale_ceiling",
               [(f"{q.now('ampd_loss_scale')} > 0", "scale {{instance}}"),
                (q.now("ampd_loss_scale_floor"), "floor {{instance}}"),
                (q.now("ampd_loss_scale_ceiling"), "ceiling {{instance}}")],
               width=12, height=6, custom={"scaleDistribution": {"type": "log", "log": 2}}),
        stacked("Fallbacks by cause", "Windows a second that ran again in float32, by what was not finite. ampd_fp32_fallbacks_total",
                [(q.summed(q.rate("ampd_fp32_fallbacks_total"), "cause"), "{{cause}} {{instance}}")], "ops"),
        stacked("Windows lost by cause", "Windows a second that were skipped or put aside. "
                "ampd_windows_skipped_total, ampd_windows_quarantined_total",
                [(q.summed(q.rate("ampd_windows_skipped_total"), "cause"), "{{cause}} {{instance}}"),
                 (q.rate("ampd_windows_quarantined_total"), "quarantined {{instance}}")], "ops"),
        series("Moves of the loss scale", "Growths and back-offs a second. ampd_loss_scale_changes_total",
               [(q.summed(q.rate("ampd_loss_scale_changes_total"), "direction"), "{{direction}} {{instance}}")], "ops"),
    ])  # fmt: skip


def _throughput() -> Section:
    return Section("Throughput", [
        series("Windows", "Optimizer updates attempted a second. ampd_windows_total",
               [(q.rate("ampd_windows_total"), "{{instance}}")], "ops", width=6),
        series("Samples", "A second. ampd_samples_processed_total",
               [(q.rate("ampd_samples_processed_total"), "{{instance}}")], "ops", width=6),
        series("Tokens", "A second; 0 for workloads without tokens. ampd_tokens_processed_total",
               [(q.rate("ampd_tokens_processed_total"), "{{instance}}")], "ops", width=6),
        stacked("Time by activity", "What a second of the step loop goes to. ampd_wall_seconds_total",
                [(q.rate("ampd_wall_seconds_total"), "{{activity}} {{instance}}")], "percentunit", width=6),
    ])  # fmt: skip


def _safety() -> Section:
    return Section("Memory and checkpoints", [
        series("Memory", "Of each rank, by kind. ampd_memory_bytes",
               [(q.now("ampd_memory_bytes", 'rank=~"$rank"'), "{{kind}} rank {{rank}} {{instance}}")], "bytes"),
        series("Memory saved", "What a micro-batch keeps less than in float32, and what that was compared with. "
               "ampd_memory_saved_bytes",
               [(q.now("ampd_memory_saved_bytes"), "against a {{basis}} {{instance}}")], "bytes"),
        series("Windows at risk", "What a crash now would run again, and the interval between checkpoints. "
               "ampd_window, ampd_last_checkpoint_window, ampd_checkpoint_interval_windows",
               [(q.AT_RISK, "at risk {{instance}}"),
                (q.now("ampd_checkpoint_interval_windows"), "interval {{instance}}")]),
        series("Checkpoint time", "Of the last one: in all, and how long the step loop waited for it. "
               "ampd_last_checkpoint_duration_seconds, ampd_last_checkpoint_stall_seconds",
               [(q.now("ampd_last_checkpoint_duration_seconds"), "in all {{instance}}"),
                (q.now("ampd_last_checkpoint_stall_seconds"), "loop waited {{instance}}")], "s", width=12),
        series("Checkpoints", "Written, failed and found damaged, each at the sample after it happened. "
               "ampd_checkpoints_total, ampd_checkpoint_failures_total, ampd_checkpoints_set_aside_total",
               [(q.summed(q.increase("ampd_checkpoints_total")), "written {{instance}}"),
                (q.summed(q.increase("ampd_checkpoint_failures_total"), "reason"), "failed: {{reason}} {{instance}}"),
                (q.summed(q.increase("ampd_checkpoints_set_aside_total")), "set aside {{instance}}")], "none", width=12,
               custom={"drawStyle": "bars", "fillOpacity": 60}),
    ])  # fmt: skip


def _operations() -> Section:
    return Section("Operations", [
        phases("State over time", "The state of each job. ampd_job_state", (q.STATES, "{{instance}}"), [*q.STATE_COLORS.items()]),
        timeline("Alerts over time", "Alerts of ampd, where they were firing. ALERTS",
                 (q.ALERTS, "{{alertname}} {{instance}}"), steps=((None, "transparent"), (1, BAD))),
        series("Restarts, changes and refusals", "At the sample after they happened. "
               "ampd_worker_restarts_total, ampd_config_changes_total, ampd_config_reload_failures_total, ampd_control_refusals_total",
               [(q.increase("ampd_worker_restarts_total"), "restart: {{reason}} {{instance}}"),
                (q.increase("ampd_config_changes_total"), "change by {{author}} {{instance}}"),
                (q.increase("ampd_config_reload_failures_total"), "reload refused {{instance}}"),
                (q.increase("ampd_control_refusals_total"), "refused: {{code}} {{instance}}")], "none",
               custom={"drawStyle": "bars", "fillOpacity": 60}),
    ])  # fmt: skip
