"""Figures as people read them, the same in `ampctl`, on its watch, on the page and in the summary of a run."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")


def in_bytes(size: float) -> str:
    """A size in the decimal unit that suits it: "1.5 GB"."""
    power = 0
    while abs(size) >= 1000 and power < len(_UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.3g} {_UNITS[power]}"


def in_time(seconds: float) -> str:
    """A length of time in its two greatest units: "3 min 20 s"; a clock that was set back is no time."""
    whole = max(0, int(seconds))
    for size, unit, below, lesser in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below:02} {lesser}"
    return f"{whole} s"


def note(text: object) -> str:
    """What stands in brackets behind a figure, where there is something to say."""
    return f" ({text})" if text else ""
