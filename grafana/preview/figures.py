"""Numbers as Grafana's units write them, and colours: of thresholds, of words, and of the names that Grafana knows."""

from __future__ import annotations

from typing import Any

COLORS = {
    "green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2", "purple": "#b877d9", "yellow": "#fade2a",
    "light-blue": "#8ab8ff", "light-purple": "#deb6f2", "dark-red": "#c4162a", "transparent": "none",
}  # fmt: skip
PALETTE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#96d98d", "#ffb357", "#ca95e5",
)  # fmt: skip
_PREFIXES = ("", "K", "M", "G", "T")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))


def written(value: float, unit: str) -> str:
    """A value in its unit: 0.125 as "12.5%", 4096 bytes as "4 KiB"."""
    match unit:
        case "percentunit":
            return f"{_plain(100 * value)}%"
        case "s":
            return _seconds(value)
        case "bytes":
            return _scaled(value, 1024, "B", "iB")
        case "ops":
            return f"{_scaled(value, 1000, '', '')} ops/s"
        case "flops":
            return f"{_scaled(value, 1000, '', '')}FLOP/s"
        case "watt":
            return f"{_scaled(value, 1000, '', '')}W"
        case "sci":
            return f"{value:.2e}"
        case "short":
            return _scaled(value, 1000, "", "")
        case _:
            return _plain(value)


def threshold_color(value: float, defaults: dict[str, Any]) -> str:
    """The colour of the highest step that a value reaches."""
    steps = defaults.get("thresholds", {}).get("steps", [])
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLORS.get(reached[-1], "#ccccdc") if reached else "#ccccdc"


def mapped(value: float, defaults: dict[str, Any]) -> tuple[str, str] | None:
    """The (text, colour) that a value is mapped to, where it is; the colour may be ""."""
    for mapping in defaults.get("mappings", []):
        found = mapping["options"].get(f"{value:g}")
        if found is not None:
            return found["text"], COLORS.get(found.get("color", ""), "")
    return None


def _plain(value: float) -> str:
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text if "e" not in text else f"{value:.2g}"


def _seconds(value: float) -> str:
    for size, unit in _SPANS:
        if abs(value) >= size:
            return f"{_plain(value / size)} {unit}"
    if 0 < abs(value) < 1:
        return f"{_plain(1000 * value)} ms" if abs(value) >= 0.001 else f"{_plain(1e6 * value)} µs"
    return f"{_plain(value)} s"


def _scaled(value: float, base: int, unit: str, suffix: str) -> str:
    power = 0
    while abs(value) >= base and power < len(_PREFIXES) - 1:
        value, power = value / base, power + 1
    return f"{_plain(value)} {_PREFIXES[power]}{suffix if power else unit}".rstrip()
