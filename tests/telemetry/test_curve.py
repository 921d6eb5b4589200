"""Curves: in their box, with gaps where nothing is known, and with words for who cannot see them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.telemetry.curve import HEIGHT, WIDTH, Curve, Value, draw

VALUES = st.one_of(st.none(), st.floats(-1e30, 1e30), st.sampled_from([0.0, 1e-300, 65536.0]))


def curve(*values: Value, marks: tuple[float, ...] = (), is_log: bool = False) -> str:
    times = [float(at) for at in range(len(values))]
    return draw(Curve(label="Loss", times=times, values=values, marks=marks, is_log=is_log))


def line(drawing: str) -> list[list[tuple[float, float]]]:
    """The strokes of the line as points."""
    found = re.search(r'class="line" d="([^"]*)"', drawing)
    strokes = found.group(1).split("M")[1:] if found else []
    return [
        [(float(x), float(y)) for x, y in (dot.split() for dot in stroke.split("L"))] for stroke in strokes
    ]


@given(st.lists(VALUES, max_size=50), st.booleans())
def test_a_line_stays_in_its_box(values: list[Value], is_log: bool) -> None:
    """Whatever the figures are; NaN or infinity never reach the drawing."""
    drawing = curve(*values, is_log=is_log)

    dots = [dot for stroke in line(drawing) for dot in stroke]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in dots)


def test_up_is_more_and_right_is_later() -> None:
    """The least is at the bottom, and time runs to the right edge."""
    ((first, _, last),) = line(curve(1.0, 2.0, 3.0))

    assert first[0] == 0 and last[0] == WIDTH
    assert first[1] > last[1]


def test_what_is_not_known_is_a_gap() -> None:
    """A window without a finite loss is not bridged by a line, and one point alone is still seen."""
    strokes = line(curve(1.0, 2.0, None, 3.0))

    assert [len(stroke) for stroke in strokes] == [2, 2]
    assert strokes[1][0] == strokes[1][1]


def test_equal_ratios_are_equal_heights_on_a_log_scale() -> None:
    """A back-off from 65536 and one from 4 are drawn alike; 0 has no place there."""
    ((a, b, c),) = line(curve(1.0, 16.0, 256.0, 0.0, is_log=True))

    assert a[1] - b[1] == pytest.approx(b[1] - c[1])


def test_a_flat_line_is_in_the_middle() -> None:
    """A figure that does not move is neither high nor low."""
    ((dot, *_),) = line(curve(5.0, 5.0, 5.0))

    assert dot[1] == HEIGHT / 2


def test_marks_are_at_their_times() -> None:
    """Each back-off is a tick at the bottom."""
    drawing = curve(1.0, 1.0, 1.0, marks=(1.0,))

    assert f'class="mark" d="M{WIDTH / 2:.1f} {HEIGHT:g}V' in drawing


def test_nothing_to_draw_is_an_empty_box() -> None:
    """The place is kept, so that nothing moves when the first figure comes."""
    assert line(curve()) == line(curve(None, None)) == []
    assert curve().startswith("<svg ")


def test_a_drawing_says_what_it_shows() -> None:
    """The label is the drawing for who cannot see it, and cannot break out of its attribute."""
    drawing = draw(Curve(label='a "b" <c>', times=[], values=[]))

    assert 'role="img" aria-label="a &quot;b&quot; &lt;c&gt;"' in drawing
