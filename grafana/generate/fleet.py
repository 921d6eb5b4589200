"""All jobs that one Prometheus knows, a row each: which of them needs somebody, and the way there."""

from __future__ import annotations

from typing import Any

from grafana.generate import queries as q
from grafana.generate.frame import dashboard
from grafana.generate.panels import (
    BAD,
    OK,
    WARN,
    Column,
    Draft,
    Section,
    phases,
    series,
    stacked,
    stat,
    table,
    timeline,
)

_UP = 'up{job=~"$job", instance=~"$instance"}'
_RUNNING = q.now("ampd_job_state", 'state="running"')
_UNWELL = q.now("ampd_job_state", 'state=~"failed|recovering"')
_TO_JOB = "/d/ampd-overview?var-instance=${__value.raw}&${__url_time_range}"


def fleet() -> dict[str, Any]:
    """The dashboard as plain data."""
    return dashboard(
        uid="ampd-fleet",
        title="Fleet",
        description="Every ampd job that this Prometheus scrapes: which are well, which need somebody, and what their daemons do.",
        sections=[_now(), _jobs(), _history(), _daemons()],
    )


def _now() -> Section:
    some_bad = ((None, OK), (1, BAD))
    return Section("Now", [
        stat("Daemons answering", "Of those that are scraped. up", (f"sum({_UP})", "answer"), "none"),
        stat("Daemons silent", "Scraped without an answer: gone, or the host is. up", (f"count({_UP} == 0) or vector(0)", "silent"),
             "none", steps=some_bad),
        stat("Jobs running", "ampd_job_state", (f"sum({_RUNNING})", "running"), "none"),
        stat("Jobs not well", "Failed, or being started again. ampd_job_state", (f"sum({_UNWELL})", "not well"), "none",
             steps=some_bad),
        stat("Alerts", "Alerts of ampd that are firing. ALERTS", (f"count({q.ALERTS}) or vector(0)", "firing"), "none",
             steps=some_bad),
        stat("Samples/s", "Of all jobs together. ampd_samples_processed_total",
             (f"sum({q.rate('ampd_samples_processed_total')})", "samples"), "short"),
        stat("Windows lost", "In this period, by all jobs. ampd_windows_skipped_total, ampd_windows_quarantined_total",
             (f"sum({q.LOST_IN_PERIOD})", "lost"), "none", steps=((None, OK), (1, WARN)), defaults={"decimals": 0}),
        stat("Restarts", "Workers started again in this period. ampd_worker_restarts_total",
             (f"sum({q.in_period('ampd_worker_restarts_total')})", "restarts"), "none", steps=((None, OK), (1, WARN)),
             defaults={"decimals": 0}),
    ])  # fmt: skip


def _jobs() -> Section:
    return Section("Jobs", [_roll()])


def _roll() -> Draft:
    """One row for each daemon; every query keeps only the labels that make its row, so that they merge."""
    described = f"sum by (instance, run_name, workload) ({q.now('ampd_run_info')})"
    state = f"sum by (instance, state) ({q.now('ampd_job_state')} == 1)"
    chosen = f"sum by (instance, precision) ({q.now('ampd_precision')} == 1)"
    return table(
        "Every job",
        "A row for each daemon; its address leads to the Overview of that job alone. ampd_run_info, ampd_job_state, "
        "ampd_precision, ampd_window, ampd_window_target, ampd_windows_total, ampd_fp32_fallbacks_total, "
        "ampd_windows_skipped_total, ampd_windows_quarantined_total, ampd_last_progress_timestamp_seconds, "
        "ampd_worker_restarts_total",
        [
            Column(name="Address", label="instance", link=_TO_JOB),
            Column(name="Job", label="run_name"),
            Column(name="Workload", label="workload"),
            Column(name="State", label="state"),
            Column(name="Precision", label="precision"),
            Column(expr=described),
            Column(expr=state),
            Column(expr=chosen),
            Column(name="Progress", expr=_row(q.PROGRESS), unit="percentunit"),
            Column(name="Windows/s", expr=_row(q.rate("ampd_windows_total")), unit="none"),
            Column(name="Fell back", expr=_row(q.per_window("ampd_fp32_fallbacks_total")), unit="percentunit",
                   steps=((None, OK), (0.02, WARN), (0.1, BAD))),
            Column(name="Lost", expr=_row(q.LOST_SHARE), unit="percentunit", steps=((None, OK), (0.001, WARN), (0.01, BAD))),
            Column(name="Last window", expr=_row(q.LAST_WINDOW_AGE), unit="s", steps=((None, OK), (60, WARN), (300, BAD))),
            Column(name="Restarts", expr=_row(q.in_period("ampd_worker_restarts_total")), unit="none",
                   steps=((None, OK), (1, WARN))),
        ],
        width=24, height=7,
    )  # fmt: skip


def _row(expr: str) -> str:
    return f"sum by (instance) ({expr})"


def _history() -> Section:
    return Section("History", [
        phases("States over time", "The state of each job. ampd_job_state",
                 (q.STATES, "{{instance}}"), [*q.STATE_COLORS.items()], width=12),
        timeline("Alerts over time", "Alerts of ampd, where they were firing. ALERTS",
                 (q.ALERTS, "{{alertname}} {{instance}}"), width=12, steps=((None, "transparent"), (1, BAD))),
        series("Progress over time", "Windows done, of all. ampd_window / ampd_window_target", [(q.PROGRESS, "{{instance}}")],
               "percentunit", width=6, defaults={"min": 0, "max": 1}),
        series("Loss by job", "Of the last window. ampd_loss", [(q.now("ampd_loss"), "{{instance}}")], width=6),
        series("Share that fell back", "Windows that ran again in float32. ampd_fp32_fallbacks_total / ampd_windows_total",
               [(q.per_window("ampd_fp32_fallbacks_total"), "{{instance}}")], "percentunit", width=6),
        series("Goodput by job", "Seconds of training in a second in which a job was meant to train. "
               "ampd_wall_seconds_total / ampd_job_state_seconds_total",
               [(q.GOODPUT, "{{instance}}")], "percentunit", width=6, defaults={"min": 0, "max": 1}),
    ])  # fmt: skip


def _daemons() -> Section:
    versions = "sum by (instance, version, torch_version, python_version, accelerator) "
    return Section("Daemons", [
        stacked("Requests", "Of operators and programs a second, by operation. ampd_control_requests_total",
                [(f"sum by (op) ({q.rate('ampd_control_requests_total')}) > 0", "{{op}}")], "ops", width=6),
        stacked("Refusals", "Requests refused a second, by code. ampd_control_refusals_total",
                [(f"sum by (code) ({q.rate('ampd_control_refusals_total')}) > 0", "{{code}}")], "ops", width=6),
        stacked("Events", "What the daemons told, a second, by how severe it is; `ampctl events` has the words. ampd_events_total",
                [(f"sum by (level) ({q.rate('ampd_events_total')}) > 0", "{{level}}")], "ops", width=6),
        series("Silence of ranks", "Time since a rank last said anything: a hung one climbs. ampd_worker_heartbeat_timestamp_seconds",
               [(f"time() - {q.now('ampd_worker_heartbeat_timestamp_seconds')}", "rank {{rank}} {{instance}}")], "s", width=6,
               defaults={"min": 0}),
        series("Cost of telemetry", "Share of a core that a daemon spends on building and sending its metrics. "
               "ampd_telemetry_seconds_total", [(q.rate("ampd_telemetry_seconds_total"), "{{work}} {{instance}}")], "percentunit",
               width=6, defaults={"min": 0}),
        series("Reloads and lost events", "At the sample after they happened: job files read again and taken or refused, and events "
               "that a worker dropped. ampd_config_reloads_total, ampd_config_reload_failures_total, ampd_events_lost_total",
               [(q.increase("ampd_config_reloads_total"), "reloaded {{instance}}"),
                (q.increase("ampd_config_reload_failures_total"), "refused {{instance}}"),
                (q.increase("ampd_events_lost_total"), "events lost {{instance}}")], "none", width=6,
               custom={"drawStyle": "bars", "fillOpacity": 60}),
        series("Readings left out", "What the metrics page of a daemon does not show, because it is not finite or there are too many. "
               "ampd_telemetry_readings_left_out",
               [(q.now("ampd_telemetry_readings_left_out"), "{{reason}} {{instance}}")], "none", width=6, defaults={"min": 0}),
        series("Ranks that report", "Of each job, while it runs or is paused, and how many train together. ampd_ranks_alive, ampd_world_size",
               [(q.now("ampd_ranks_alive"), "report {{instance}}"),
                (q.now("ampd_world_size"), "in all {{instance}}")], "none", width=6, defaults={"min": 0}),
        series("Processor time of daemons", "Share of a core that a daemon takes for everything it does; its worker's is not in it. "
               "ampd_daemon_cpu_seconds_total", [(q.rate("ampd_daemon_cpu_seconds_total"), "{{instance}}")], "percentunit", width=6,
               defaults={"min": 0}),
        series("Memory of daemons", "Resident now: one that climbs for days is a leak. ampd_daemon_memory_bytes",
               [(q.now("ampd_daemon_memory_bytes"), "{{instance}}")], "bytes", width=6, defaults={"min": 0}),
        stacked("Log lines", "Written a second, by level. ampd_log_lines_total",
                [(f"sum by (level) ({q.rate('ampd_log_lines_total')}) > 0", "{{level}}")], "ops", width=6),
        series("Log lines left out", "At the sample after it happened: an event that came too often, or a stream that took no line. "
               "ampd_log_lines_left_out_total",
               [(q.increase("ampd_log_lines_left_out_total"), "{{reason}} {{instance}}")], "none", width=6,
               custom={"drawStyle": "bars", "fillOpacity": 60}),
        table("Versions", "What runs where. ampd_build_info", [
            Column(name="Address", label="instance"), Column(name="ampd", label="version"),
            Column(name="torch", label="torch_version"), Column(name="Python", label="python_version"),
            Column(name="Device", label="accelerator"),
            Column(expr=f"{versions}({q.now('ampd_build_info')})"),
        ], width=24, height=5),
    ])  # fmt: skip
