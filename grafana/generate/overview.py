"""The dashboard that one looks at first: is the job well, and what is precision doing?"""

from __future__ import annotations

from typing import Any

from grafana.generate.model import Annotation, Dashboard, Source, Variable, to_json
from grafana.generate.panels import (
    BAD,
    JOB,
    OK,
    WARN,
    Section,
    lay_out,
    series,
    stacked,
    stat,
    timeline,
    word,
)

_ALERTS = f'alertname=~"Ampd.*", {JOB}'


def overview() -> dict[str, Any]:
    """The dashboard as plain data."""
    dashboard = Dashboard(
        uid="ampd-overview",
        title="ampd / Overview",
        description="One or several ampd jobs: progress, learning, what precision does and costs, what a crash would lose.",
        tags=["ampd"],
        panels=lay_out([_now(), _learning(), _precision(), _throughput(), _safety(), _operations()]),
        templating={"list": _variables()},
        annotations={"list": _annotations()},
        time={"from": "now-1h", "to": "now"},
    )
    return to_json(dashboard)


def _now() -> Section:
    lost = f"sum without (cause) (rate(ampd_windows_skipped_total{{{JOB}}}[$__rate_interval]))"
    fallbacks = f"sum without (cause) (rate(ampd_fp32_fallbacks_total{{{JOB}}}[$__rate_interval]))"
    windows = f"(rate(ampd_windows_total{{{JOB}}}[$__rate_interval]) > 0)"
    to_go = f"(ampd_window_target{{{JOB}}} - ampd_window{{{JOB}}})"
    ages = ((None, OK), (60, WARN), (300, BAD))
    return Section("Now", [
        word("State", "The state of the job. ampd_job_state", (f"ampd_job_state{{{JOB}}} == 1", "{{state}}")),
        word("Precision", "What windows are first attempted at. ampd_precision",
             (f"ampd_precision{{{JOB}}} == 1", "{{precision}}")),
        stat("Progress", "Windows done, of all. ampd_window / ampd_window_target",
             (f"ampd_window{{{JOB}}} / (ampd_window_target{{{JOB}}} > 0)", "{{instance}}"), "percentunit"),
        stat("Time left", "Windows to go at the present speed. ampd_window_target, ampd_window, ampd_windows_total",
             (f"{to_go} / {windows}", "{{instance}}"), "s"),
        stat("Last window", "Time since the window number moved; a pause stops it too. ampd_last_progress_timestamp_seconds",
             (f"time() - (ampd_last_progress_timestamp_seconds{{{JOB}}} > 0)", "{{instance}}"), "s", steps=ages),
        stat("Fallbacks", "Share of windows that ran again in float32. ampd_fp32_fallbacks_total / ampd_windows_total",
             (f"{fallbacks} / {windows}", "{{instance}}"), "percentunit", steps=((None, OK), (0.02, WARN), (0.1, BAD))),
        stat("Skips", "Share of windows that were never applied. ampd_windows_skipped_total / ampd_windows_total",
             (f"{lost} / {windows}", "{{instance}}"), "percentunit", steps=((None, OK), (0.001, WARN), (0.01, BAD))),
        stat("Alerts", "Alerts of ampd that are firing. ALERTS",
             (f'count(ALERTS{{alertstate="firing", {_ALERTS}}}) or vector(0)', "firing"), steps=((None, OK), (1, BAD))),
    ])  # fmt: skip


def _learning() -> Section:
    return Section("Learning", [
        series("Loss", "Loss of the last window and the mean since the last reset of statistics. ampd_loss, ampd_span_loss",
               [(f"ampd_loss{{{JOB}}}", "loss {{instance}}"),
                (f'ampd_span_loss{{statistic="mean", {JOB}}}', "mean {{instance}}")], width=6),
        series("Held-out figures", "What the workload measures on data that it does not train on. ampd_evaluated_figure",
               [(f"ampd_evaluated_figure{{{JOB}}}", "{{figure}} {{instance}}")], width=6),
        series("Gradient norm", "Unscaled, before clipping, on a logarithmic scale. ampd_grad_norm",
               [(f"ampd_grad_norm{{{JOB}}}", "{{instance}}")], width=6,
               custom={"scaleDistribution": {"type": "log", "log": 10}}),
        series("Learning rate", "Of the last window. ampd_learning_rate",
               [(f"ampd_learning_rate{{{JOB}}}", "{{instance}}")], "sci", width=6),
    ])  # fmt: skip


def _precision() -> Section:
    def by(label: str, metric: str) -> str:
        return f"sum by (job, instance, {label}) (rate({metric}{{{JOB}}}[$__rate_interval]))"

    return Section("Precision", [
        timeline("Precision over time", "Precision of first attempts: each change is an operator's or a policy's. ampd_precision",
                 (f"ampd_precision{{{JOB}}}", "{{precision}} {{instance}}"), width=12, height=6),
        series("Loss scale", "Powers of two between its floor and its ceiling; nothing while the loss is not scaled. "
               "ampd_loss_scale, ampd_loss_scale_floor, ampd_loss_scale_ceiling",
               [(f"ampd_loss_scale{{{JOB}}} > 0", "scale {{instance}}"),
                (f"ampd_loss_scale_floor{{{JOB}}}", "floor {{instance}}"),
                (f"ampd_loss_scale_ceiling{{{JOB}}}", "ceiling {{instance}}")],
               width=12, height=6, custom={"scaleDistribution": {"type": "log", "log": 2}}),
        stacked("Fallbacks by cause", "Windows a second that ran again in float32, by what was not finite. ampd_fp32_fallbacks_total",
                [(by("cause", "ampd_fp32_fallbacks_total"), "{{cause}} {{instance}}")], "ops"),
        stacked("Windows lost by cause", "Windows a second that were skipped or put aside. "
                "ampd_windows_skipped_total, ampd_windows_quarantined_total",
                [(by("cause", "ampd_windows_skipped_total"), "{{cause}} {{instance}}"),
                 (f"rate(ampd_windows_quarantined_total{{{JOB}}}[$__rate_interval])", "quarantined {{instance}}")], "ops"),
        series("Moves of the loss scale", "Growths and back-offs a second. ampd_loss_scale_changes_total",
               [(by("direction", "ampd_loss_scale_changes_total"), "{{direction}} {{instance}}")], "ops"),
    ])  # fmt: skip


def _throughput() -> Section:
    def rate(metric: str) -> str:
        return f"rate({metric}{{{JOB}}}[$__rate_interval])"

    return Section("Throughput", [
        series("Windows", "Optimizer updates attempted a second. ampd_windows_total",
               [(rate("ampd_windows_total"), "{{instance}}")], "ops", width=6),
        series("Samples", "A second. ampd_samples_processed_total",
               [(rate("ampd_samples_processed_total"), "{{instance}}")], "ops", width=6),
        series("Tokens", "A second; 0 for workloads without tokens. ampd_tokens_processed_total",
               [(rate("ampd_tokens_processed_total"), "{{instance}}")], "ops", width=6),
        stacked("Time by activity", "What a second of the step loop goes to. ampd_wall_seconds_total",
                [(rate("ampd_wall_seconds_total"), "{{activity}} {{instance}}")], "percentunit", width=6),
    ])  # fmt: skip


def _safety() -> Section:
    return Section("Memory and checkpoints", [
        series("Memory", "Of each rank, by kind. ampd_memory_bytes",
               [(f"ampd_memory_bytes{{{JOB}}}", "{{kind}} rank {{rank}} {{instance}}")], "bytes"),
        series("Memory saved", "What a micro-batch keeps less than in float32, and what that was compared with. "
               "ampd_memory_saved_bytes",
               [(f"ampd_memory_saved_bytes{{{JOB}}}", "against a {{basis}} {{instance}}")], "bytes"),
        series("Windows at risk", "What a crash now would run again, and the interval between checkpoints. "
               "ampd_window, ampd_last_checkpoint_window, ampd_checkpoint_interval_windows",
               [(f"ampd_window{{{JOB}}} - ampd_last_checkpoint_window{{{JOB}}}", "at risk {{instance}}"),
                (f"ampd_checkpoint_interval_windows{{{JOB}}}", "interval {{instance}}")]),
        series("Checkpoint time", "Of the last one: in all, and how long the step loop waited for it. "
               "ampd_last_checkpoint_duration_seconds, ampd_last_checkpoint_stall_seconds",
               [(f"ampd_last_checkpoint_duration_seconds{{{JOB}}}", "in all {{instance}}"),
                (f"ampd_last_checkpoint_stall_seconds{{{JOB}}}", "loop waited {{instance}}")], "s", width=12),
        series("Checkpoints", "Written, failed and found damaged since the daemon started. "
               "ampd_checkpoints_total, ampd_checkpoint_failures_total, ampd_checkpoints_set_aside_total",
               [(f"ampd_checkpoints_total{{{JOB}}}", "written {{instance}}"),
                (f"ampd_checkpoint_failures_total{{{JOB}}}", "failed {{instance}}"),
                (f"ampd_checkpoints_set_aside_total{{{JOB}}}", "set aside {{instance}}")], width=12),
    ])  # fmt: skip


def _operations() -> Section:
    def increase(metric: str) -> str:
        return f"increase({metric}{{{JOB}}}[$__rate_interval])"

    return Section("Operations", [
        timeline("State over time", "Each state of the job, where it held. ampd_job_state",
                 (f"ampd_job_state{{{JOB}}}", "{{state}} {{instance}}")),
        timeline("Alerts over time", "Alerts of ampd, where they were firing. ALERTS",
                 (f'ALERTS{{alertstate="firing", {_ALERTS}}}', "{{alertname}} {{instance}}"),
                 steps=((None, "transparent"), (1, BAD))),
        series("Restarts, changes and refusals", "Since the sample before. "
               "ampd_worker_restarts_total, ampd_config_changes_total, ampd_control_refusals_total",
               [(increase("ampd_worker_restarts_total"), "restart: {{reason}} {{instance}}"),
                (increase("ampd_config_changes_total"), "change by {{author}} {{instance}}"),
                (increase("ampd_control_refusals_total"), "refused: {{code}} {{instance}}")], "none",
               custom={"drawStyle": "bars", "fillOpacity": 60}),
    ])  # fmt: skip


def _variables() -> list[Variable]:
    return [
        Variable(name="datasource", type="datasource", label="Data source", query="prometheus",
                 description="The Prometheus that scrapes the jobs."),
        _choice("job", "Job", "label_values(ampd_build_info, job)", "Prometheus's job label."),
        _choice("instance", "Instance", 'label_values(ampd_build_info{job=~"$job"}, instance)', "One for each daemon."),
    ]  # fmt: skip


def _choice(name: str, label: str, query: str, description: str) -> Variable:
    return Variable(
        name=name,
        type="query",
        label=label,
        description=description,
        query={"query": query, "refId": f"variable-{name}"},
        definition=query,
        datasource=Source(),
        include_all=True,
        all_value=".+",
        multi=True,
        current={"selected": True, "text": ["All"], "value": ["$__all"]},
    )


def _annotations() -> list[Any]:
    def where_grows(metric: str) -> str:
        return f"increase({metric}{{{JOB}}}[$__rate_interval]) > 0"

    built_in = {
        "builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
    }  # fmt: skip
    return [
        built_in,
        Annotation(name="Configuration changes", expr=where_grows("ampd_config_changes_total"), icon_color="blue",
                   title_format="{{author}} changed the configuration of {{instance}}"),
        Annotation(name="Worker restarts", expr=where_grows("ampd_worker_restarts_total"), icon_color="red",
                   title_format="the worker of {{instance}} was started again: {{reason}}"),
    ]  # fmt: skip
