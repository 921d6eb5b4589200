"""Trials as values: records in, decision out; and the same decision as computing it from all records at once."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.guard import Figure, Guard, parse
from ampd.core.ledger import Cause, WindowRecord
from ampd.core.preceding import LEAST, MOST, Before, Preceding
from ampd.core.precision import Precision
from ampd.core.trial import Terms, Trial
from ampd.errors import ConfigError

BEFORE = Before(windows=8, loss=2.0, grad_norm=4.0, step_time=0.5)


def record(
    *,
    loss: float = 1.0,
    fell: bool = False,
    skipped: bool = False,
    scale: float | None = None,
    norm: float = 1.0,
) -> WindowRecord:
    """One window of a ledger."""
    return WindowRecord(
        window=0, epoch=0, loss=loss, precision=Precision.FLOAT32, first=Precision.FLOAT16, lr=0.1, grad_norm=norm,
        scale=scale, replays=((Cause.FORWARD, "float32"),) if fell or skipped else (),
        skipped=Cause.DATA if skipped else None,
    )  # fmt: skip


def trial(windows: int, *guards: str, before: Before = BEFORE) -> Trial:
    terms = Terms(windows=windows, guards=tuple(map(parse, guards)), before=before)
    return Trial(revision=2, since=100, terms=terms, back={"optim.lr": 0.1})


def after(subject: Trial, records: Sequence[WindowRecord], seconds: float = 0.5) -> Trial:
    for each in records:
        subject = subject.timed(seconds).enter(each)
    return subject


def trips_at(subject: Trial, records: Sequence[WindowRecord]) -> int | None:
    """After how many windows a guard trips, if one does."""
    for number, each in enumerate(records, start=1):
        subject = after(subject, [each])
        if subject.tripped() is not None:
            return number
    return None


@pytest.mark.parametrize(
    ("guard", "fallen", "trips"),
    [
        ("fallback_rate<0.2", [0], None),
        ("fallback_rate<0.2", [0, 5], 6),
        ("fallback_rate<=0.2", [0, 5], None),
        ("fallback_rate==0", [3], 4),
        ("fallback_rate>0", [9], None),
        ("fallback_rate>0", [], 10),
        ("fallback_rate>=0.2", [0], 10),
        ("fallback_rate>=0.3", [0], 9),
    ],
)
def test_a_rate_trips_in_the_window_that_decides_it(guard: str, fallen: list[int], trips: int | None) -> None:
    """Not before, although the rate so far may be far above, and not after."""
    records = [record(fell=number in fallen) for number in range(10)]

    assert trips_at(trial(10, guard), records) == trips


def test_a_window_that_was_never_applied_trips_nonfinite() -> None:
    """At once; a fallback alone is not one."""
    records = [record(fell=True), record(skipped=True), record()]

    assert trips_at(trial(10, "nonfinite==0"), records) == 2
    assert trips_at(trial(10, "skip_rate<0.2"), records) is None


def test_a_mean_is_looked_at_from_a_quarter_on() -> None:
    """The first windows after a change say little."""
    records = [record(loss=9.0), record(loss=9.0), record(loss=9.0)]

    assert trips_at(trial(12, "loss<2"), records) == 3
    assert trips_at(trial(13, "loss<2"), records) is None


@pytest.mark.parametrize(("guard", "holds"), [("loss<0.6x", True), ("loss<0.5x", False), ("grad_norm<=0.25x", True),
                                              ("step_time<1.1x", True), ("step_time<1x", False), ("step_time<0.6", True)])  # fmt: skip
def test_a_multiple_is_of_before(guard: str, holds: bool) -> None:
    """Losses of 1 are half of 2, norms of 1 a quarter of 4, and half a second is what it was."""
    assert (trips_at(trial(2, guard), [record(), record()]) is None) is holds


def test_the_scale_is_looked_at_after_every_window() -> None:
    """A window without a scale passes."""
    records = [record(scale=None), record(scale=16.0), record(scale=8.0), record(scale=16.0)]

    assert trips_at(trial(100, "scale>=16"), records) == 3


def test_what_is_not_known_at_the_end_does_not_hold() -> None:
    """A trial with no finite loss at all is not confirmed by its loss."""
    ended = after(trial(3, "loss<5"), [record(loss=float("nan"))] * 3)
    trip = ended.tripped()

    assert trip is not None
    assert str(trip) == "guard loss<5 does not hold: it is not known after window 102"


def test_a_trip_says_guard_value_and_window() -> None:
    """What an operator reads in the history."""
    trip = after(trial(10, "fallback_rate<0.2"), [record(fell=True)] * 2).tripped()

    assert str(trip) == "guard fallback_rate<0.2 does not hold: fallback_rate is 0.2 after window 101"


def test_windows_after_the_end_do_not_count() -> None:
    """Those of the next configuration may be recorded before the end takes effect."""
    ended = after(trial(2, "nonfinite==0"), [record(), record(), record(skipped=True)])

    assert (ended.is_over, ended.tripped(), ended.tally.windows) == (True, None, 2)


def test_how_it_stands_has_every_guard_with_its_figure() -> None:
    """Rates are of the windows so far, multiples of what was before."""
    standing = after(
        trial(10, "fallback_rate<0.9", "loss<2x", "scale>4"), [record(fell=True), record()]
    ).standing()

    assert standing.guards == {"fallback_rate<0.9": 0.5, "loss<2x": 0.5, "scale>4": None}
    assert (standing.since, standing.until, standing.windows, standing.keys) == (100, 110, 2, ("optim.lr",))


def test_what_is_compared_is_bounded_and_finite() -> None:
    """The newest windows only, and no loss that is no number."""
    lately = Preceding()
    for number in range(MOST + 9):
        lately.timed(1.0)
        lately.enter(record(loss=float("nan") if number % 2 else 1.0))

    assert (lately.windows, len(lately.losses), len(lately.seconds)) == (MOST, (MOST + 10) // 2, MOST)
    assert lately.summary() == Before(windows=MOST, loss=1.0, grad_norm=1.0, step_time=1.0)


@pytest.mark.parametrize(
    ("windows", "loss", "said"),
    [
        (LEAST - 1, 1.0, f"needs {LEAST}"),
        (LEAST, float("nan"), f"needs {LEAST}"),
        (LEAST, -3.0, "was -3 before"),
    ],
)
def test_a_multiple_of_nothing_is_refused(windows: int, loss: float, said: str) -> None:
    """Too few windows before the change, or none whose figure a multiple would mean something of."""
    lately = Preceding()
    for _ in range(windows):
        lately.enter(record(loss=loss))

    with pytest.raises(ConfigError, match=said):
        Terms(windows=5, guards=(parse("loss<2x"),)).begun(lately)


def test_a_trial_that_begins_again_compares_with_the_same() -> None:
    """What a journal says was before is taken, not measured anew."""
    assert (
        Terms(windows=5, guards=(parse("step_time<2x"),), before=BEFORE).begun(Preceding()).before == BEFORE
    )


Window = tuple[bool, bool, int, int]
WINDOWS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=24
)
TEXTS = ["fallback_rate<0.25", "fallback_rate>=0.5", "skip_rate<=0.1", "nonfinite==0", "nonfinite<3", "loss<1x", "loss>1",
         "grad_norm<=0.5x", "step_time<4x", "step_time<=1", "scale>=2"]  # fmt: skip


@given(windows=WINDOWS, text=st.sampled_from(TEXTS), longer=st.integers(0, 6))
def test_a_decision_is_that_of_a_plain_computation(windows: list[Window], text: str, longer: int) -> None:
    """After every window: the same as counting, averaging and trying every way in which the rest could go."""
    total = len(windows) + longer
    subject, guard = trial(total, text), parse(text)

    for number in range(1, len(windows) + 1):
        fell, skipped, loss, size = windows[number - 1]
        each = record(fell=fell, skipped=skipped, loss=float(loss), norm=float(size), scale=float(size))
        subject = subject.timed(float(size)).enter(each)

        assert (subject.tripped() is None) is plainly_holds(guard, windows[:number], total), number


def plainly_holds(guard: Guard, seen: list[Window], total: int) -> bool:
    """Whether a guard holds or still may, from all windows seen."""

    def holds(value: float) -> bool:
        return guard.can_hold(value, value)

    left = total - len(seen)
    match guard.figure:
        case Figure.FALLBACK_RATE:
            count = sum(fell or skipped for fell, skipped, *_ in seen)
            return any(holds((count + more) / total) for more in range(left + 1))
        case Figure.SKIP_RATE:
            count = sum(skipped for _, skipped, *_ in seen)
            return any(holds((count + more) / total) for more in range(left + 1))
        case Figure.NONFINITE:
            return any(holds(sum(skipped for _, skipped, *_ in seen) + more) for more in range(left + 1))
        case Figure.SCALE:
            return holds(seen[-1][3])
    if 4 * len(seen) < total:
        return True
    values = {Figure.LOSS: [w[2] for w in seen]}.get(guard.figure, [w[3] for w in seen])
    value = statistics.median(values) if guard.figure is Figure.STEP_TIME else sum(values) / len(values)
    return holds(value / (BEFORE.of(guard.figure) or 1) if guard.is_relative else value)
