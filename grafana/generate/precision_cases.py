"""Histories of the alerts about precision."""

from __future__ import annotations

from grafana.generate.history import Case, series


def precision_cases() -> list[Case]:
    """Fallbacks, lost windows, the loss scale, memory."""
    return [*_spike(), *_high(), *_skipped(), *_all_skipped(), *_bad(), *_floor(), *_split(), *_near_limit()]


def _fallbacks(values: str, windows: str = "0+100x240", **others: str) -> dict[str, str]:
    """Fallbacks by one cause among 100 windows a minute; the other causes are there, at 0."""
    return {
        series("ampd_windows_total"): windows,
        series("ampd_fp32_fallbacks_total", cause="forward"): values,
        series("ampd_fp32_fallbacks_total", cause="scale"): "0x240",
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
        series("ampd_windows_total"): windows,
        series("ampd_windows_skipped_total", cause="data"): skipped,
        series("ampd_windows_skipped_total", cause="model"): "0x240",
        series("ampd_windows_quarantined_total"): quarantined,
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


def _all_skipped() -> list[Case]:
    name, in_a_row = "AmpdAllWindowsSkipped", series("ampd_consecutive_skipped_windows")
    return [
        Case(alert=name, kind="fires", why="nothing was applied for forty windows, then sixty",
             history={in_a_row: "0x5 40 60x20"}, firing={6: None, 9: "60"}),
        Case(alert=name, kind="stays silent", why="twenty bad windows, then a good one",
             history={in_a_row: "0x5 20x10 0x10"}, firing={10: None, 20: None}),
        Case(alert=name, kind="stays silent", why="a burst that is over within a minute",
             history={in_a_row: "0x5 40 0x20"}, firing={6: None, 8: None, 10: None}),
        Case(alert=name, kind="resolves", why="an operator switches to float32",
             history={in_a_row: "0x5 40x10 0x10"}, firing={10: "40", 20: None}),
    ]  # fmt: skip


def _bad() -> list[Case]:
    name = "AmpdBadWindow"

    def history(skipped: str, quarantined: str = "0x60", cause: str = "data") -> dict[str, str]:
        return {
            series("ampd_windows_skipped_total", cause=cause): skipped,
            series("ampd_windows_skipped_total", cause="model"): "0x60",
            series("ampd_windows_quarantined_total"): quarantined,
        }

    return [
        Case(alert=name, kind="fires", why="a single window with broken inputs",
             history=history("0x20 1x40"), firing={20: None, 25: "1"}),
        Case(alert=name, kind="fires", why="a window that was put aside to be looked at",
             history=history("0x60", "0x20 1x40"), firing={20: None, 25: "1"}),
        Case(alert=name, kind="stays silent", why="fallback is off, and the loss scale settles",
             history=history("0x20 1+1x40", cause="scale"), firing={25: None, 40: None}),
        Case(alert=name, kind="resolves", why="it was the only one",
             history=history("0x20 1x60"), firing={25: "1", 32: None}),
    ]  # fmt: skip


def _split() -> list[Case]:
    name, splits = "AmpdMemorySplit", series("ampd_memory_splits_total")
    return [
        Case(alert=name, kind="fires", why="a long sample does not fit", history={splits: "0x20 1x20"}, firing={20: None, 25: "1"}),
        Case(alert=name, kind="stays silent", why="all of them fit", history={splits: "0x40"}, firing={25: None}),
        Case(alert=name, kind="resolves", why="the halves fit", history={splits: "0x20 1x60"}, firing={25: "1", 32: None}),
    ]  # fmt: skip


def _near_limit() -> list[Case]:
    name, labels = "AmpdDeviceMemoryNearLimit", (("rank", "1"),)

    def history(reserved: str, retries: str, limit: str = "100x90") -> dict[str, str]:
        return {
            series("ampd_memory_bytes", rank="1", kind="reserved"): reserved,
            series("ampd_memory_bytes", rank="1", kind="peak"): "99x90",
            series("ampd_memory_limit_bytes", rank="1"): limit,
            series("ampd_allocator_retries_total", rank="1"): retries,
        }

    return [
        Case(alert=name, kind="fires", why="a batch that only just fits", labels=labels,
             history=history("60x10 98x80", "0x10 0+2x80"), firing={15: None, 30: "98%"}),
        Case(alert=name, kind="stays silent", why="a cache that has grown and is enough",
             history=history("60x10 98x80", "7x90"), firing={15: None, 40: None}),
        Case(alert=name, kind="stays silent", why="retries of a cache in pieces, with room left",
             history=history("60x90", "0+2x90"), firing={15: None, 40: None}),
        Case(alert=name, kind="stays silent", why="one large batch among small ones",
             history=history("60x10 98x5 60x70", "0x10 0+2x5 10x70"), firing={15: None, 30: None}),
        Case(alert=name, kind="resolves", why="an operator switches to bfloat16", labels=labels,
             history=history("98x40 60x40", "0+2x40 80x40"), firing={30: "98%", 50: None}),
    ]  # fmt: skip


def _floor() -> list[Case]:
    name, scale, floor = "AmpdLossScaleAtFloor", series("ampd_loss_scale"), series("ampd_loss_scale_floor")
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
