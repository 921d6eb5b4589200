"""For every alert: a history in which it fires, one in which it stays silent, one in which it resolves.

The histories are promtool's: one value a minute from time 0, `0+10x60` a counter that grows by 10, `_` a
scrape that failed. The expected annotations are worked out from the alert's own templates, so a test fails
when its text breaks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grafana.generate.pace import Pace
from grafana.generate.rules import Alert, alerts, texts

Kind = Literal["fires", "stays silent", "resolves"]

TARGET = {"job": "ampd", "instance": "gpu1:9647"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A history and what the alert does in it: at each minute of `firing` the value it shows, None for silence."""

    alert: str
    kind: Kind
    why: str
    history: dict[str, str]
    firing: dict[int, str | None]
    labels: tuple[tuple[str, str], ...] = ()


def document(runbooks: str, chosen: Sequence[Case]) -> dict[str, Any]:
    """The promtool test file of these cases."""
    named = {alert.name: alert for alert in alerts(Pace())}
    return {
        "rule_files": ["../rules.yml"],
        "evaluation_interval": "15s",
        "tests": [_group(case, named[case.alert], runbooks) for case in chosen],
    }


def cases() -> list[Case]:
    """All histories, by alert."""
    return [
        *_spike(), *_high(), *_skipped(), *_floor(), *_stalled(), *_stale(), *_failed(), *_down(),
    ]  # fmt: skip


def _group(case: Case, alert: Alert, runbooks: str) -> dict[str, Any]:
    return {
        "name": f"{case.alert} {case.kind}: {case.why}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.history.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": alert.name,
                "exp_alerts": [_expected(case, alert, runbooks, shown)] if shown is not None else [],
            }
            for minute, shown in case.firing.items()
        ],
    }


def _expected(case: Case, alert: Alert, runbooks: str, shown: str) -> dict[str, Any]:
    filled = {
        key: re.sub(
            r"\{\{ \$value.*? \}\}", shown, text.replace("{{ $labels.instance }}", TARGET["instance"])
        )
        for key, text in texts(alert, runbooks).items()
    }
    return {
        "exp_labels": {"severity": alert.severity, **TARGET, **dict(case.labels)},
        "exp_annotations": filled,
    }


def _series(name: str, **labels: str) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in (TARGET | labels).items())
    return f"{name}{{{pairs}}}"


def _fallbacks(values: str, windows: str = "0+100x240", **others: str) -> dict[str, str]:
    """Fallbacks by one cause among 100 windows a minute; the other causes are there, at 0."""
    return {
        _series("ampd_windows_total"): windows,
        _series("ampd_fp32_fallbacks_total", cause="forward"): values,
        _series("ampd_fp32_fallbacks_total", cause="scale"): "0x240",
    }


def _spike() -> list[Case]:
    name = "AmpdFallbackSpike"
    return [
        Case(alert=name, kind="fires", why="a quiet hour, then one window in ten falls back",
             history=_fallbacks("0x90 10+10x60"), firing={94: None, 99: "10%"}),
        Case(alert=name, kind="fires", why="a young job has no hour to compare with",
             history=_fallbacks("0x10 4+4x60"), firing={10: None, 20: "4%"}),
        Case(alert=name, kind="stays silent", why="one window in twenty, as in the hour before",
             history=_fallbacks("0+5x240"), firing={150: None, 200: None}),
        Case(alert=name, kind="stays silent", why="twice the hour before is no spike",
             history=_fallbacks("0+4x120 488+8x60"), firing={130: None, 140: None}),
        Case(alert=name, kind="stays silent", why="one bad window in a slow job",
             history=_fallbacks("0x90 1x60", windows="0+1x240"), firing={92: None, 97: None, 105: None}),
        Case(alert=name, kind="stays silent", why="the scale settles in the first minutes",
             history=_fallbacks("0 10 12 12x60"), firing={3: None, 10: None, 20: None}),
        Case(alert=name, kind="resolves", why="ten bad minutes, then quiet for longer than it is kept",
             history=_fallbacks("0x90 10+10x9 100x120"), firing={99: "10%", 130: None}),
    ]  # fmt: skip


def _high() -> list[Case]:
    name = "AmpdFallbackHigh"
    return [
        Case(alert=name, kind="fires", why="one window in five from the first minute on",
             history=_fallbacks("0+20x60"), firing={9: None, 20: "20%"}),
        Case(alert=name, kind="stays silent", why="one window in twenty",
             history=_fallbacks("0+5x60"), firing={20: None, 50: None}),
        Case(alert=name, kind="stays silent", why="the scale settles in the first minutes",
             history=_fallbacks("0 10 12 12x60"), firing={5: None, 10: None, 20: None}),
        Case(alert=name, kind="resolves", why="half an hour of it, then none",
             history=_fallbacks("0+20x30 600x90"), firing={30: "20%", 70: None}),
    ]  # fmt: skip


def _lost(skipped: str, quarantined: str = "0x240", windows: str = "0+100x240") -> dict[str, str]:
    return {
        _series("ampd_windows_total"): windows,
        _series("ampd_windows_skipped_total", cause="data"): skipped,
        _series("ampd_windows_skipped_total", cause="model"): "0x240",
        _series("ampd_windows_quarantined_total"): quarantined,
    }


def _skipped() -> list[Case]:
    name = "AmpdWindowsSkipped"
    return [
        Case(alert=name, kind="fires", why="one window in twenty-five is skipped",
             history=_lost("0x10 4+4x60"), firing={14: None, 25: "4%"}),
        Case(alert=name, kind="fires", why="quarantined windows are lost too",
             history=_lost("0x60", "0x10 4+4x60"), firing={10: None, 25: "4%"}),
        Case(alert=name, kind="stays silent", why="one bad batch in a thousand windows",
             history=_lost("0x20 1x60"), firing={23: None, 30: None}),
        Case(alert=name, kind="stays silent", why="one bad batch in a slow job",
             history=_lost("0x20 1x60", windows="0+1x240"), firing={24: None, 30: None}),
        Case(alert=name, kind="resolves", why="the bad file is behind us",
             history=_lost("0+4x20 80x90"), firing={20: "4%", 55: None}),
    ]  # fmt: skip


def _floor() -> list[Case]:
    name, scale, floor = "AmpdLossScaleAtFloor", _series("ampd_loss_scale"), _series("ampd_loss_scale_floor")
    return [
        Case(alert=name, kind="fires", why="the scale backs off until it cannot",
             history={scale: "1024 64 4 1x60", floor: "1x70"}, firing={4: None, 10: "1"}),
        Case(alert=name, kind="stays silent", why="a dip that recovers within five minutes",
             history={scale: "1024 1x3 2x60", floor: "1x70"}, firing={4: None, 10: None, 30: None}),
        Case(alert=name, kind="stays silent", why="bfloat16 has no loss scale",
             history={scale: "0x60", floor: "1x60"}, firing={30: None}),
        Case(alert=name, kind="resolves", why="an operator switches to bfloat16",
             history={scale: "1x20 0x60", floor: "1x80"}, firing={10: "1", 25: None}),
    ]  # fmt: skip


def _going(progress: str, *, windows: str, state: str = "1x240", since: str = "0x240") -> dict[str, str]:
    return {
        _series("ampd_last_progress_timestamp_seconds"): progress,
        _series("ampd_windows_total"): windows,
        _series("ampd_job_state", state="running"): state,
        _series("ampd_job_state_since_timestamp_seconds"): since,
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
            _series("ampd_window"): "0+100x120",
            _series("ampd_last_checkpoint_window"): last,
            _series("ampd_checkpoint_interval_windows"): "500x120",
            _series("ampd_job_state", state="running"): state,
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


def _failed() -> list[Case]:
    name, state = "AmpdJobFailed", _series("ampd_job_state", state="failed")
    labels = (("state", "failed"),)
    return [
        Case(alert=name, kind="fires", why="the state is failed", labels=labels,
             history={state: "0x5 1x10"}, firing={5: None, 7: "1"}),
        Case(alert=name, kind="stays silent", why="a worker that is started again is not a failed job",
             history={state: "0x15", _series("ampd_job_state", state="recovering"): "0x5 1x10"}, firing={10: None}),
        Case(alert=name, kind="resolves", why="the job was started again", labels=labels,
             history={state: "0x5 1x10 0x10"}, firing={10: "1", 18: None}),
    ]  # fmt: skip


def _down() -> list[Case]:
    name, up = "AmpdDown", _series("up")
    return [
        Case(alert=name, kind="fires", why="the machine is gone in the middle of a run",
             history={up: "1x10 0x60", _series("ampd_job_state", state="completed"): "0x10 _x60"}, firing={11: None, 14: "0"}),
        Case(alert=name, kind="stays silent", why="the daemon ended with its job",
             history={up: "1x10 0x60", _series("ampd_job_state", state="completed"): "0x9 1 _x60"}, firing={14: None, 60: None}),
        Case(alert=name, kind="stays silent", why="one scrape was missed",
             history={up: "1x10 0 1x60"}, firing={11: None, 13: None}),
        Case(alert=name, kind="resolves", why="the daemon is back",
             history={up: "1x10 0x20 1x60"}, firing={20: "0", 33: None}),
    ]  # fmt: skip
