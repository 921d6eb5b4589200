"""Histories of the alerts about progress."""

from __future__ import annotations

from grafana.generate.history import Case, series


def progress_cases() -> list[Case]:
    """Stalls and checkpoints."""
    return [*_stalled(), *_stale()]


def _going(progress: str, *, windows: str, state: str = "1x240", since: str = "0x240") -> dict[str, str]:
    return {
        series("ampd_last_progress_timestamp_seconds"): progress,
        series("ampd_windows_total"): windows,
        series("ampd_job_state", state="running"): state,
        series("ampd_job_state_since_timestamp_seconds"): since,
    }


def _stalled() -> list[Case]:
    name = "AmpdTrainingStalled"
    return [
        Case(alert=name, kind="fires", why="windows stop after half an hour",
             history=_going("0+60x30 1800x90", windows="0+100x30 3000x90"), firing={36: None, 40: "10m 0s"}),
        Case(alert=name, kind="fires", why="still standing when the last window is more than an hour ago",
             history=_going("0+60x30 1800x120", windows="0+100x30 3000x120"), firing={120: "1h 30m 0s"}),
        Case(alert=name, kind="stays silent", why="windows of two minutes each",
             history=_going("0+120x60", windows="0+1x60"), firing={30: None, 60: None}),
        Case(alert=name, kind="stays silent", why="a window takes twelve minutes, as they all do",
             history=_going(_every(12), windows=_steps(12)), firing={59: None, 70: None}),
        Case(alert=name, kind="stays silent", why="an operator paused the job",
             history=_going("0+60x30 1800x90", windows="0+100x30 3000x90", state="1x30 0x90"), firing={40: None, 90: None}),
        Case(alert=name, kind="stays silent", why="just resumed after a long pause",
             history=_going("0x200", windows="0x200", since="0x60 3660x100"), firing={63: None, 66: None}),
        Case(alert=name, kind="resolves", why="the data loader comes back",
             history=_going("0+60x30 1800x20 3060+60x60", windows="0+100x30 3000x20 3100+100x60"),
             firing={45: "15m 0s", 52: None}),
    ]  # fmt: skip


def _every(minutes: int) -> str:
    """Time stamps of windows that end every so many minutes, as scraped once a minute for 80 of them."""
    return " ".join(str(minute // minutes * minutes * 60) for minute in range(81))


def _steps(minutes: int) -> str:
    return " ".join(str(minute // minutes) for minute in range(81))


def _stale() -> list[Case]:
    name = "AmpdCheckpointStale"

    def history(last: str, state: str = "1x120") -> dict[str, str]:
        return {
            series("ampd_window"): "0+100x120",
            series("ampd_last_checkpoint_window"): last,
            series("ampd_checkpoint_interval_windows"): "500x120",
            series("ampd_job_state", state="running"): state,
        }

    return [
        Case(alert=name, kind="fires", why="nothing was saved since the start",
             history=history("0x120"), firing={16: None, 25: "2.5k"}),
        Case(alert=name, kind="stays silent", why="one checkpoint for each interval",
             history=history(" ".join(str(minute // 5 * 500) for minute in range(121))), firing={20: None, 59: None, 119: None}),
        Case(alert=name, kind="stays silent", why="a paused job writes none",
             history=history("0x120", state="0x120"), firing={60: None}),
        Case(alert=name, kind="resolves", why="the disk has room again",
             history=history("0x30 3000+100x60"), firing={25: "2.5k", 32: None}),
    ]  # fmt: skip
