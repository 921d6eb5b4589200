"""Histories of the alerts about processes."""

from __future__ import annotations

from grafana.generate.history import Case, series


def process_cases() -> list[Case]:
    """Jobs that failed, daemons that are gone."""
    return [*_failed(), *_down()]


def _failed() -> list[Case]:
    name, state = "AmpdJobFailed", series("ampd_job_state", state="failed")
    labels = (("state", "failed"),)
    return [
        Case(alert=name, kind="fires", why="the state is failed", labels=labels,
             history={state: "0x5 1x10"}, firing={5: None, 7: "1"}),
        Case(alert=name, kind="stays silent", why="a worker that is started again is not a failed job",
             history={state: "0x15", series("ampd_job_state", state="recovering"): "0x5 1x10"}, firing={10: None}),
        Case(alert=name, kind="resolves", why="the job was started again", labels=labels,
             history={state: "0x5 1x10 0x10"}, firing={10: "1", 18: None}),
    ]  # fmt: skip


def _down() -> list[Case]:
    name, up = "AmpdDown", series("up")
    return [
        Case(alert=name, kind="fires", why="the machine is gone in the middle of a run",
             history={up: "1x10 0x60", series("ampd_job_state", state="completed"): "0x10 _x60"}, firing={11: None, 14: "0"}),
        Case(alert=name, kind="stays silent", why="the daemon ended with its job",
             history={up: "1x10 0x60", series("ampd_job_state", state="completed"): "0x9 1 _x60"}, firing={14: None, 60: None}),
        Case(alert=name, kind="stays silent", why="one scrape was missed",
             history={up: "1x10 0 1x60"}, firing={11: None, 13: None}),
        Case(alert=name, kind="resolves", why="the daemon is back",
             history={up: "1x10 0x20 1x60"}, firing={20: "0", 33: None}),
    ]  # fmt: skip
