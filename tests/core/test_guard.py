"""Guards as operators type them: each that means something is read, each that does not is refused with what is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.cli.ctl_trial import GUARDS
from ampd.core.description import FIELDS
from ampd.core.guard import DEFAULT, Figure, Guard, parse
from ampd.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "guard"),
    [
        ("fallback_rate<0.02", Guard(figure=Figure.FALLBACK_RATE, operator="<", limit=0.02)),
        (" nonfinite == 0 ", Guard(figure=Figure.NONFINITE, operator="==", limit=0.0)),
        ("step_time<1.3x", Guard(figure=Figure.STEP_TIME, operator="<", limit=1.3, is_relative=True)),
        ("scale>=16", Guard(figure=Figure.SCALE, operator=">=", limit=16.0)),
        ("skip_rate<=1e-3", Guard(figure=Figure.SKIP_RATE, operator="<=", limit=0.001)),
        ("loss<-2.5", Guard(figure=Figure.LOSS, operator="<", limit=-2.5)),
    ],
)
def test_a_guard_is_read(text: str, guard: Guard) -> None:
    """Figure, operator, limit, and whether it is a multiple of before."""
    assert parse(text) == guard


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonfinite", "expected FIGURE OPERATOR LIMIT"),
        ("nonfinite=0", "expected FIGURE OPERATOR LIMIT"),
        ("falback_rate<0.1", "did you mean 'fallback_rate'"),
        ("loss<many", "'many' is no finite number"),
        ("loss<inf", "'inf' is no finite number"),
        ("scale>2x", "scale is not compared with before"),
        ("loss==2", "never equals a number"),
        ("fallback_rate<2", "a share, from 0 to 1"),
        ("nonfinite<0", "never below 0"),
        ("step_time<-1x", "never below 0"),
        ("skip_rate>1", "never above 1"),
    ],
)
def test_a_guard_that_means_nothing_is_refused(text: str, said: str) -> None:
    """One clear error that repeats what was given, and says what to give."""
    with pytest.raises(ConfigError, match=said) as refused:
        parse(text)

    assert (refused.value.field, bool(refused.value.hint)) == ("guards", True)
    assert repr(text) in str(refused.value)


@given(
    figure=st.sampled_from([Figure.LOSS, Figure.GRAD_NORM, Figure.STEP_TIME]), operator=st.sampled_from(["<", "<=", ">", ">="]),
    limit=st.floats(0.001, 1e6), is_relative=st.booleans(),
)  # fmt: skip
def test_a_guard_is_written_as_it_is_read(
    figure: Figure, operator: str, limit: float, is_relative: bool
) -> None:
    """What `ampctl history` shows can be typed again."""
    guard = parse(f"{figure}{operator}{limit!r}{'x' * is_relative}")

    assert parse(str(guard)).operator == operator
    assert parse(str(guard)).limit == pytest.approx(limit)
    assert parse(str(guard)).is_relative is is_relative


@given(
    operator=st.sampled_from(["<", "<=", "==", ">=", ">"]),
    limit=st.integers(0, 8),
    least=st.integers(0, 8),
    more=st.integers(0, 8),
)
def test_what_can_hold_holds_for_some_value(operator: str, limit: int, least: int, more: int) -> None:
    """The same as trying every value between the bounds."""
    guard = parse(f"nonfinite{operator}{limit}") if (operator, limit) != ("<", 0) else None
    if guard is not None:
        held = {"<": int.__lt__, "<=": int.__le__, "==": int.__eq__, ">=": int.__ge__, ">": int.__gt__}[
            operator
        ]
        fits = any(held(value, limit) for value in range(least, least + more + 1))

        assert guard.can_hold(least, least + more) is fits


def test_every_figure_is_explained_where_it_is_asked_for() -> None:
    """In `ampctl set --help`, and in the protocol's description; the defaults in the help are the real ones."""
    assert all(f"  {figure.value} " in GUARDS for figure in Figure)
    assert all(f"{figure.value}, {figure.doc}" in FIELDS["guards"] for figure in Figure)
    assert ", ".join(map(str, DEFAULT)) in GUARDS
