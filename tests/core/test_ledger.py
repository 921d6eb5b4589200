"""The AMP ledger: every window counted once, with its cause, in spans that can be reset."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.ledger import Cause, Counts, Ledger, Span, WindowRecord
from ampd.core.precision import Precision

F16, BF16, F32 = Precision.FLOAT16, Precision.BFLOAT16, Precision.FLOAT32


def row(**fields: Any) -> WindowRecord:
    """A window that was applied at once, with some fields changed."""
    given: dict[str, Any] = {
        "window": 0, "epoch": 0, "loss": 1.0, "precision": F16, "first": F16, "lr": 0.1, "grad_norm": 1.0,
    }  # fmt: skip
    return WindowRecord(**{**given, **fields})


ROWS = st.builds(
    row,
    first=st.sampled_from([F16, BF16, F32]),
    replays=st.lists(
        st.tuples(st.sampled_from(Cause), st.sampled_from(["retry", "bfloat16", "float32"])), max_size=3
    ).map(tuple),
    skipped=st.none() | st.sampled_from(Cause),
    quarantined=st.booleans(),
    clipped=st.booleans(),
    samples=st.integers(0, 100),
    tokens=st.integers(0, 100),
)


def entered(rows: list[WindowRecord]) -> Ledger:
    """A ledger with these windows in it."""
    ledger = Ledger()
    for record in rows:
        ledger.record(record)
    return ledger


@given(st.lists(ROWS, max_size=30))
def test_every_window_is_applied_or_skipped(rows: list[WindowRecord]) -> None:
    """The law of the ledger holds whatever happened."""
    counts = entered(rows).job

    assert counts.is_balanced
    assert counts.windows == len(rows)
    assert counts.applied == sum(r.skipped is None for r in rows)


@given(st.lists(ROWS, max_size=30))
def test_a_fallback_is_counted_once_a_window(rows: list[WindowRecord]) -> None:
    """Replays count every rung that was tried; fallbacks count windows that reached float32."""
    counts = entered(rows).job

    assert sum(sum(by.values()) for by in counts.replays.values()) == sum(len(r.replays) for r in rows)
    assert sum(counts.fp32_fallbacks.values()) == sum(
        any(rung == "float32" for _, rung in r.replays) for r in rows
    )


@given(st.lists(ROWS, max_size=20), st.lists(ROWS, max_size=20))
def test_a_span_is_what_came_since_the_reset(before: list[WindowRecord], after: list[WindowRecord]) -> None:
    """Resetting begins a span and leaves the job's counts as they are."""
    ledger = entered(before)

    ledger.reset_span()
    for record in after:
        ledger.record(record)

    expected = entered(after).job
    assert nonzero(ledger.span) == nonzero(expected)
    assert nonzero(ledger.job) == nonzero(entered(before + after).job)


@given(st.lists(ROWS, max_size=15), st.lists(ROWS, max_size=15), st.lists(ROWS, max_size=15))
def test_counts_add_up_over_workers(
    a: list[WindowRecord], b: list[WindowRecord], c: list[WindowRecord]
) -> None:
    """Two workers one after the other sum to what one would have counted; the order of summing does not matter."""
    x, y, z = (entered(rows).job for rows in (a, b, c))

    assert nonzero(x.plus(y).plus(z)) == nonzero(x.plus(y.plus(z))) == nonzero(entered(a + b + c).job)
    assert nonzero(x.plus(y).minus(y)) == nonzero(x.plus(y).minus(y).copy())
    assert nonzero(x.plus(y).minus(x)) == nonzero(y)


def nonzero(counts: Counts) -> dict[str, Any]:
    """Counts as plain data without their zeros: a label that was never seen and one at zero say the same."""

    def kept(node: Any) -> Any:
        if isinstance(node, dict):
            children = {label: kept(value) for label, value in node.items()}
            return {label: value for label, value in children.items() if value}
        return node

    plain: dict[str, Any] = kept(msgspec.to_builtins(counts))
    return plain


def test_a_copy_shares_nothing() -> None:
    """A snapshot of the counts stays as it was when the next window is entered."""
    bad = row(replays=((Cause.FORWARD, "float32"),), skipped=Cause.MODEL)
    ledger = entered([bad])
    copied = ledger.job.copy()
    before = msgspec.to_builtins(copied)

    ledger.record(bad)

    assert msgspec.to_builtins(copied) == before
    assert ledger.job.replays == {"forward": {"float32": 2}}


def test_a_window_that_fell_back_is_counted_by_its_first_float32_cause() -> None:
    """The cause is that of the attempt which sent the window to float32."""
    ledger = entered([row(precision=F32, replays=((Cause.SCALE, "retry"), (Cause.BACKWARD, "float32")))])

    assert ledger.job.fp32_fallbacks == {"backward": 1}
    assert ledger.job.replays == {"scale": {"retry": 1}, "backward": {"float32": 1}}


def test_low_precision_counts_first_attempts() -> None:
    """What a window was first tried at, not where it ended."""
    ledger = entered([row(first=F16, precision=F32), row(first=BF16), row(first=F32, precision=F32)])

    assert ledger.job.low_precision == 2


def test_a_quarantined_window_is_counted_apart() -> None:
    """It was not applied, and it is not among the skipped."""
    counts = entered([row(skipped=Cause.DATA, quarantined=True), row(skipped=Cause.DATA)]).job

    assert (counts.quarantined, counts.skipped, counts.is_balanced) == (1, {"data": 1}, True)


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({}, 0),
        ({"loss": math.nan}, 1),
        ({"loss": math.inf, "skipped": Cause.MODEL}, 1),
        ({"replays": ((Cause.FORWARD, "float32"),)}, 1),
        ({"replays": ((Cause.FORWARD, "bfloat16"), (Cause.FORWARD, "float32")), "loss": math.nan}, 1),
        ({"replays": ((Cause.SCALE, "retry"),)}, 0),
    ],
)
def test_a_bad_loss_is_counted_once_a_window(fields: dict[str, Any], counted: int) -> None:
    """At whichever attempt it was not finite, mended or not; a bad gradient is not a bad loss."""
    assert entered([row(**fields)]).job.nonfinite_losses == counted


def test_moves_of_the_scale_are_counted() -> None:
    """Up and down apart; a window without a scale in between changes nothing."""
    scales = [8.0, 8.0, 4.0, None, 4.0, 2.0, None, 8.0]

    counts = entered([row(scale=scale) for scale in scales]).job

    assert (counts.scale_growths, counts.scale_backoffs) == (1, 2)


def test_the_ratio_of_fallbacks() -> None:
    """Fallbacks over all windows, and 0 where there are none."""
    assert Counts().fallback_ratio == 0.0
    assert Counts(windows=8, fp32_fallbacks={"forward": 1, "scale": 1}).fallback_ratio == 0.25


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out_and_counted(bad: float) -> None:
    """A mean over windows says how many it left out, and is never NaN itself."""
    span = Span()

    for value in (2.0, bad, 4.0):
        span.add(value)

    assert (span.mean, span.least, span.greatest) == (3.0, 2.0, 4.0)
    assert (span.count, span.left_out) == (2, 1)


def test_an_empty_span_has_no_mean() -> None:
    """Nothing is not zero."""
    assert (Span().mean, Span().least, Span().greatest) == (None, None, None)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=50))
def test_a_span_is_that_of_its_finite_values(values: list[float]) -> None:
    """Least, mean and greatest are those of the finite values, in constant memory."""
    span, finite = Span(), [v for v in values if math.isfinite(v)]

    for value in values:
        span.add(value)

    assert span.count + span.left_out == len(values)
    assert (span.least, span.greatest) == (min(finite, default=None), max(finite, default=None))
    if finite:
        assert span.mean == pytest.approx(
            math.fsum(finite) / len(finite), rel=1e-9, abs=1e-6 * max(map(abs, finite))
        )


def test_figures_of_unscaled_windows_have_no_scale() -> None:
    """A float32 window adds its loss to the span and nothing to the scale."""
    ledger = Ledger()

    ledger.observe(1.0, None, Precision.FLOAT32)
    ledger.observe(math.nan, 8.0, Precision.FLOAT32)

    assert (ledger.loss.count, ledger.loss.left_out) == (1, 1)
    assert (ledger.scale.count, ledger.scale.mean) == (1, 8.0)


def test_resetting_clears_the_figures() -> None:
    """A new span starts its figures anew."""
    ledger = Ledger()
    ledger.observe(1.0, 8.0, Precision.FLOAT32)

    ledger.reset_span()

    assert (ledger.loss, ledger.scale) == (Span(), Span())


@given(st.lists(ROWS, max_size=10), st.lists(ROWS, max_size=10))
def test_a_ledger_survives_its_checkpoint(before: list[WindowRecord], after: list[WindowRecord]) -> None:
    """Plain data and back is the same ledger, in the middle of a span too."""
    ledger = entered(before)
    ledger.reset_span()
    for record in after:
        ledger.record(record)
        ledger.observe(record.loss, 2.0, Precision.FLOAT32)

    restored = msgspec.convert(msgspec.json.decode(msgspec.json.encode(ledger)), Ledger)

    assert restored == ledger
    assert restored.span == ledger.span
