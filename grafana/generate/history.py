"""A history for promtool: what is scraped, and what an alert does while it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


def series(name: str, **labels: str) -> str:
    """A series of our one target."""
    pairs = ",".join(f'{key}="{value}"' for key, value in (TARGET | labels).items())
    return f"{name}{{{pairs}}}"
