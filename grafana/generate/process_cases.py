"""Histories of the alerts about processes."""

from __future__ import annotations

from grafana.generate.history import Case, series


def process_cases() -> list[Case]:
    """Daemons, workers, and what they could not do."""
    return [
        *_failed(), *_down(), *_absent(), *_silent(), *_missing(), *_crash_looping(), *_reload_failed(), *_dropping(),
    ]  # fmt: skip


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


def _absent() -> list[Case]:
    name, start = "AmpdAbsent", series("ampd_job_start_timestamp_seconds")

    def history(seen: str, completed: str, up: str = "1x10 _x60") -> dict[str, str]:
        return {start: seen, series("ampd_job_state", state="completed"): completed, series("up"): up}

    gone = "600x10 _x60"
    return [
        Case(alert=name, kind="fires", why="a killed daemon is no longer among the targets",
             history=history(gone, "0x10 _x60"), firing={20: None, 30: "1970-01-01 00:10:00 +0000 UTC"}),
        Case(alert=name, kind="stays silent", why="it runs", history=history("600x70", "0x70", up="1x70"), firing={30: None}),
        Case(alert=name, kind="stays silent", why="a target that does not answer is AmpdDown's",
             history=history(gone, "0x10 _x60", up="1x10 0x60"), firing={30: None}),
        Case(alert=name, kind="stays silent", why="its job was completed",
             history=history(gone, "0x9 1 _x60"), firing={30: None, 60: None}),
        Case(alert=name, kind="resolves", why="it was started again",
             history=history("600x10 _x30 2400x30", "0x10 _x30 0x30", up="1x10 _x30 1x30"),
             firing={30: "1970-01-01 00:10:00 +0000 UTC", 45: None}),
    ]  # fmt: skip


def _silent() -> list[Case]:
    name = "AmpdWorkerSilent"

    def history(
        heard: str, windows: str = "0+100x30 3000x90", state: str = "running", holds: str = "1x120",
        evaluates: str = "0x120",
    ) -> dict[str, str]:  # fmt: skip
        return {
            series("ampd_worker_heartbeat_timestamp_seconds", rank="0"): heard,
            series("ampd_worker_heartbeat_timestamp_seconds", rank="1"): "0+60x120",
            series("ampd_windows_total"): windows,
            series("ampd_job_state", state=state): holds,
            series("ampd_job_state", state="recovering"): "0x120",
            series("ampd_worker_phase", phase="evaluation"): evaluates,
        }

    stops = "0+60x30 1800x90"
    return [
        Case(alert=name, kind="fires", why="one of two ranks is stopped", history=history(stops), firing={31: None, 35: "5m 0s"}),
        Case(alert=name, kind="fires", why="the worker of a paused job hangs",
             history=history(stops, state="paused"), firing={31: None, 35: "5m 0s"}),
        Case(alert=name, kind="stays silent", why="windows of five minutes each",
             history=history(_every_five_minutes(), windows="0+0.2x120"), firing={30: None, 59: None}),
        Case(alert=name, kind="stays silent", why="it is being started again",
             history=history(stops, holds="1x30 0x90"), firing={40: None}),
        Case(alert=name, kind="stays silent", why="an evaluation of ten minutes",
             history=history("0+60x30 1800x10 2460+60x60", evaluates="0x30 1x10 0x80"), firing={35: None, 40: None}),
        Case(alert=name, kind="fires", why="it says nothing after an evaluation either",
             history=history(stops, evaluates="0x30 1x10 0x80"), firing={40: None, 45: "15m 0s"}),
        Case(alert=name, kind="stays silent", why="silent for a minute and a half",
             history=history("0+60x30 1800x1 1920+60x80"), firing={32: None, 33: None}),
        Case(alert=name, kind="resolves", why="it goes on",
             history=history("0+60x30 1800x10 2460+60x60"), firing={35: "5m 0s", 45: None}),
    ]  # fmt: skip


def _every_five_minutes() -> str:
    return " ".join(str(minute // 5 * 300) for minute in range(121))


def _missing() -> list[Case]:
    name = "AmpdWorkerMissing"

    def history(starting: str, recovering: str) -> dict[str, str]:
        return {
            series("ampd_job_state", state="starting"): starting,
            series("ampd_job_state", state="recovering"): recovering,
        }

    return [
        Case(alert=name, kind="fires", why="it waits longer and longer to be started again",
             history=history("0x40", "0x5 1x35"), firing={10: None, 20: "1"}),
        Case(alert=name, kind="stays silent", why="a model that takes five minutes to load",
             history=history("1x5 0x35", "0x40"), firing={4: None, 20: None}),
        Case(alert=name, kind="resolves", why="the file system is there again",
             history=history("1x20 0x20", "0x40"), firing={15: "1", 25: None}),
    ]  # fmt: skip


def _crash_looping() -> list[Case]:
    name = "AmpdWorkerCrashLooping"

    def history(crashes: str, rollbacks: str = "0x90") -> dict[str, str]:
        return {
            series("ampd_worker_restarts_total", reason="crashed"): crashes,
            series("ampd_worker_restarts_total", reason="killed"): "0x90",
            series("ampd_worker_restarts_total", reason="rolled_back"): rollbacks,
        }

    return [
        Case(alert=name, kind="fires", why="three crashes within ten minutes",
             history=history("0x40 1x4 2x4 3x40"), firing={45: None, 55: "3"}),
        Case(alert=name, kind="stays silent", why="two crashes", history=history("0x40 1x4 2x40"), firing={50: None, 60: None}),
        Case(alert=name, kind="stays silent", why="a policy went back four times", history=history("0x90", "0x40 4x40"), firing={50: None}),
        Case(alert=name, kind="resolves", why="it has been running for half an hour",
             history=history("0x40 1x2 2x2 3x80"), firing={50: "3", 90: None}),
    ]  # fmt: skip


def _reload_failed() -> list[Case]:
    name, failures = "AmpdConfigReloadFailed", series("ampd_config_reload_failures_total")
    reloads = {series("ampd_config_reloads_total"): "0x20 5x60"}
    return [
        Case(alert=name, kind="fires", why="a typing error", history={failures: "0x20 1x60"}, firing={20: None, 25: "1"}),
        Case(alert=name, kind="stays silent", why="reloads that were taken over", history={failures: "0x80", **reloads}, firing={25: None}),
        Case(alert=name, kind="resolves", why="ten minutes later", history={failures: "0x20 1x60"}, firing={25: "1", 32: None}),
    ]  # fmt: skip


def _dropping() -> list[Case]:
    name = "AmpdTelemetryDropping"

    def history(lost: str, nonfinite: str = "0x60") -> dict[str, str]:
        return {
            series("ampd_events_lost_total"): lost,
            series("ampd_telemetry_readings_left_out", reason="nonfinite"): nonfinite,
            series("ampd_telemetry_readings_left_out", reason="bound"): "0x60",
        }

    return [
        Case(alert=name, kind="fires", why="the link has been full for a while", history=history("0+10x60"), firing={8: None, 20: "50"}),
        Case(alert=name, kind="fires", why="a figure is NaN in every evaluation", history=history("0x60", "0x5 1x55"), firing={10: None, 20: "1"}),
        Case(alert=name, kind="stays silent", why="a gap while the daemon was stopped", history=history("0x20 100x40"), firing={22: None, 40: None}),
        Case(alert=name, kind="resolves", why="the loop has calmed down", history=history("0+10x20 200x40"), firing={20: "50", 30: None}),
    ]  # fmt: skip
