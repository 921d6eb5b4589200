"""Histories of the alerts about progress."""

from __future__ import annotations

from grafana.generate.history import Case, series


def progress_cases() -> list[Case]:
    """Stalls, speed and checkpoints."""
    return [*_stalled(), *_slower(), *_goodput(), *_starved(), *_stale(), *_failing()]


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


def _slower() -> list[Case]:
    name = "AmpdThroughputRegression"

    def history(windows: str, state: str = "1x200") -> dict[str, str]:
        return {series("ampd_windows_total"): windows, series("ampd_job_state", state="running"): state}

    return [
        Case(alert=name, kind="fires", why="an hour and a half at ten windows a second, then five",
             history=history("0+600x90 54300+300x50"), firing={100: None, 125: "5"}),
        Case(alert=name, kind="stays silent", why="an eighth slower",
             history=history("0+600x90 54525+525x50"), firing={110: None, 135: None}),
        Case(alert=name, kind="stays silent", why="ten slow minutes, as of an evaluation",
             history=history("0+600x90 54300+300x9 57600+600x30"), firing={100: None, 104: None, 115: None}),
        Case(alert=name, kind="stays silent", why="an operator paused the job",
             history=history("0+600x90 54000x50", state="1x90 0x50"), firing={130: None}),
        Case(alert=name, kind="stays silent", why="a young job has no past to compare with",
             history=history("0+600x20 12300+300x60"), firing={50: None}),
        Case(alert=name, kind="resolves", why="the neighbour on the machine has gone",
             history=history("0+600x90 54300+300x40 66900+600x30"), firing={125: "5", 145: None}),
    ]  # fmt: skip


def _spent(
    *, training: str, other: str = "0x400", running: str = "0+60x400", paused: str = "0x400"
) -> dict[str, str]:
    return {
        series("ampd_wall_seconds_total", activity="train"): training,
        series("ampd_wall_seconds_total", activity="data"): other,
        series("ampd_job_state_seconds_total", state="running"): running,
        series("ampd_job_state_seconds_total", state="paused"): paused,
    }


def _goodput() -> list[Case]:
    name = "AmpdGoodputLow"
    return [
        Case(alert=name, kind="fires", why="half of the time goes to something else",
             history=_spent(training="0+30x400"), firing={50: None, 120: "50%"}),
        Case(alert=name, kind="stays silent", why="nine tenths go to training",
             history=_spent(training="0+54x400"), firing={120: None, 150: None}),
        Case(alert=name, kind="stays silent", why="a pause of two hours that was asked for",
             history=_spent(training="0+54x120 6480x120", running="0+60x120 7200x120", paused="0x120 0+60x120"),
             firing={200: None, 239: None}),
        Case(alert=name, kind="stays silent", why="half an hour of a slow file system",
             history=_spent(training="0+57x120 6840+10x30 7197+57x240"), firing={150: None, 190: None}),
        Case(alert=name, kind="resolves", why="the loader got more threads",
             history=_spent(training="0+30x150 4554+54x200"), firing={120: "50%", 220: None}),
    ]  # fmt: skip


def _starved() -> list[Case]:
    name = "AmpdDataStarved"
    return [
        Case(alert=name, kind="fires", why="a store that has become slow",
             history=_spent(training="0+30x60", other="0+30x60"), firing={10: None, 30: "50%"}),
        Case(alert=name, kind="stays silent", why="a fifth of the time",
             history=_spent(training="0+48x60", other="0+12x60"), firing={30: None, 50: None}),
        Case(alert=name, kind="stays silent", why="ten minutes after the file changed",
             history=_spent(training="0+60x20 1230+30x9 1560+60x60", other="0x20 30+30x9 300x60"), firing={30: None, 36: None, 50: None}),
        Case(alert=name, kind="resolves", why="the store is back",
             history=_spent(training="0+30x40 1260+60x40", other="0+30x40 1200x40"), firing={30: "50%", 50: None}),
    ]  # fmt: skip


def _failing() -> list[Case]:
    name, failures = "AmpdCheckpointFailing", series("ampd_checkpoint_failures_total")
    return [
        Case(alert=name, kind="fires", why="two in a row", history={failures: "0x40 1x10 2x40"}, firing={45: None, 55: "2"}),
        Case(alert=name, kind="stays silent", why="one, and the next was written",
             history={failures: "0x40 1x60"}, firing={45: None, 60: None}),
        Case(alert=name, kind="fires", why="the disk does not answer, so there will be no second one",
             labels=(("reason", "stalled"),),
             history={series("ampd_checkpoint_failures_total", reason="stalled"): "0x40 1x60"}, firing={39: None, 45: "1"}),
        Case(alert=name, kind="resolves", why="the disk has room again",
             history={failures: "0x40 1x5 2x80"}, firing={50: "2", 90: None}),
    ]  # fmt: skip


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
