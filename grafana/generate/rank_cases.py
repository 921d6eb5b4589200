"""The histories of alerts about ranks."""

from __future__ import annotations

from grafana.generate.history import Case, series


def rank_cases() -> list[Case]:
    """Weights and speed."""
    return [*_diverged(), *_straggler()]


def _diverged() -> list[Case]:
    name, found = "AmpdRanksDiverged", series("ampd_rank_divergence_total")
    return [
        Case(alert=name, kind="fires", why="one comparison found a rank apart", history={found: "0x20 1x100"}, firing={20: None, 25: "1"}),
        Case(alert=name, kind="stays silent", why="the ranks are alike", history={found: "0x120"}, firing={30: None, 90: None}),
        Case(alert=name, kind="resolves", why="an hour after all of them began again alike",
             history={found: "0x20 1x100"}, firing={25: "1", 85: None}),
    ]  # fmt: skip


def _straggler() -> list[Case]:
    name = "AmpdRankStraggler"

    def history(slow: str) -> dict[str, str]:
        work = "ampd_rank_work_seconds_total"
        return {
            series(work, rank="0"): "0+24x120",
            series(work, rank="1"): "0+24x120",
            series(work, rank="2"): slow,
        }

    return [
        Case(alert=name, kind="fires", why="one of three ranks takes twice as long", history=history("0+48x120"), firing={10: None, 25: "80%"}),
        Case(alert=name, kind="stays silent", why="a sixth more is usual", history=history("0+28x120"), firing={25: None, 60: None}),
        Case(alert=name, kind="stays silent", why="a job of one process, which waits for nobody",
             history={series("ampd_rank_work_seconds_total", rank="0"): "0x120"},
             firing={25: None, 60: None}),
        Case(alert=name, kind="stays silent", why="slow for ten minutes", history=history("0+24x20 504+48x10 984+24x80"), firing={32: None, 45: None}),
        Case(alert=name, kind="resolves", why="the other program on its device has ended",
             history=history("0+48x40 1944+24x80"), firing={30: "80%", 50: None}),
    ]  # fmt: skip
