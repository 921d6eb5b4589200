"""Elements of a picture: rectangles, lines, text that is cut to its width, and paths without needless points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

TEXT, SOFT, GRID, CARD, BACK, EDGE = "#d8d9da", "#9fa3ab", "#2c3036", "#181b1f", "#111217", "#2a2d33"
_WIDTH = 0.54
"""Of a letter of the sans-serif fonts that browsers have, for each pixel of its size; none is wider on the mean."""

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Box:
    """A place on the sheet, in pixels."""

    x: float
    y: float
    w: float
    h: float

    def within(self, left: float, top: float, right: float, bottom: float) -> Box:
        """The box without margins."""
        return Box(self.x + left, self.y + top, self.w - left - right, self.h - top - bottom)


def rect(box: Box, fill: str, *, stroke: str = "", radius: float = 0, opacity: float = 1) -> str:
    """A filled rectangle."""
    more = f' stroke="{stroke}"' if stroke else ""
    more += f' rx="{radius:g}"' if radius else ""
    more += f' opacity="{opacity:g}"' if opacity != 1 else ""
    return f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{max(0, box.w):.1f}" height="{max(0, box.h):.1f}" fill="{fill}"{more}/>'


def line(a: tuple[float, float], b: tuple[float, float], stroke: str, *, dash: str = "") -> str:
    """A straight line of one pixel."""
    more = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}" stroke="{stroke}"{more}/>'


def text(
    x: float, y: float, words: str, *, size: float = 11, fill: str = TEXT, anchor: Anchor = "start", bold: bool = False
) -> str:  # fmt: skip
    """Words on a base line."""
    more = f' text-anchor="{anchor}"' if anchor != "start" else ""
    more += ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{fill}"{more}>{escape(words)}</text>'


def width(words: str, size: float) -> float:
    """About how wide words are drawn."""
    return len(words) * size * _WIDTH


def cut(words: str, size: float, room: float) -> str:
    """The words, cut with an ellipsis where they would be wider than the room."""
    most = int(room / (size * _WIDTH))
    return words if len(words) <= most else f"{words[: max(0, most - 1)]}…"


def wrapped(words: str, size: float, room: float) -> list[str]:
    """The words in lines that fit."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = [longer] if width(longer, size) <= room else [lines[-1], word]
    return lines


def path(points: Sequence[tuple[float, float]], stroke: str) -> str:
    """A curve; points that lie on the level line between their neighbours are left out."""
    kept = [
        point for at, point in enumerate(points)
        if not 0 < at < len(points) - 1 or not points[at - 1][1] == point[1] == points[at + 1][1]
    ]  # fmt: skip
    return f'<path d="{_moves(kept)}" stroke="{stroke}" stroke-width="1.5"/>'


def area(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], fill: str) -> str:
    """The area between two curves."""
    return f'<path d="{_moves([*upper, *reversed(lower)])}Z" fill="{fill}" opacity=".45"/>'


def _moves(points: Sequence[tuple[float, float]]) -> str:
    """A path in steps from point to point, which are shorter to write than places."""
    rounded = [(round(x), round(y)) for x, y in points]
    steps = (f"{b[0] - a[0]} {b[1] - a[1]}" for a, b in itertools.pairwise(rounded))
    return f"M{rounded[0][0]} {rounded[0][1]}l{' '.join(steps)}".replace(" -", "-").rstrip("l")
