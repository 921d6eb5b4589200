"""Figures as people read them."""

from __future__ import annotations

import pytest

from ampd.core.shown import in_bytes, in_time, note


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2 GB"), (5e16, "5e+04 TB")]
)
def test_sizes_are_in_the_unit_that_suits_them(size: float, text: str) -> None:
    """Decimal units, three figures, as `ampctl` shows them."""
    assert in_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"), (59.9, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (3600, "1 h 00 min"),
        (86399, "23 h 59 min"), (147900, "1 d 17 h"), (40 * 86400, "40 d 00 h"),
    ],
)  # fmt: skip
def test_times_have_their_two_greatest_units(seconds: float, text: str) -> None:
    """Nobody counts 41 hours; and a clock that was set back is no time."""
    assert in_time(seconds) == text


def test_a_note_is_there_only_where_something_is_said() -> None:
    """No empty brackets."""
    assert (note("by hand"), note(""), note(None)) == (" (by hand)", "", "")
