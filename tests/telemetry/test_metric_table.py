"""The table of metrics: its lint, the lint of the lint, and what is printed from it."""

from __future__ import annotations

import msgspec
import pytest

from ampd.telemetry.family import Family, Kind, Label
from ampd.telemetry.lint import lint
from ampd.telemetry.metrics import CAUSE, FAMILIES, family
from ampd.telemetry.reference import explain, reference

GOOD = Family("ampd_things_total", Kind.COUNTER, "Things that were counted.", (Label("cause", ("a", "b")),))


def test_the_table_is_clean() -> None:
    """What ships breaks no rule of naming, units, labels or size."""
    assert lint(FAMILIES) == []


def test_a_good_family_is_clean() -> None:
    """The lint has nothing to say of the family that the next test breaks."""
    assert lint([GOOD]) == []


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"name": "train_things_total"}, "ampd_"),
        ({"name": "ampd_things:sum_total"}, "colons"),
        ({"name": "ampd_Things_total"}, "lower-case"),
        ({"name": "ampd_things"}, "a counter ends in _total"),
        ({"kind": Kind.GAUGE}, "nothing else does"),
        ({"kind": Kind.GAUGE, "name": "ampd_things_info"}, "an info metric ends in _info"),
        ({"kind": Kind.GAUGE, "name": "ampd_things_count"}, "histograms"),
        ({"name": "ampd_fallback_percent_total"}, "'percent'"),
        ({"name": "ampd_memory_gib_total"}, "'gib'"),
        ({"name": "ampd_step_ms_total"}, "'ms'"),
        ({"name": "ampd_last_window_age_total"}, "'age'"),
        ({"name": "ampd_time_seconds_total"}, "its unit is none, but its name says seconds"),
        ({"unit": "bytes"}, "its unit is bytes, but its name says none"),
        ({"kind": Kind.HISTOGRAM, "bounds": (1.0,)}, "nothing else does"),
        ({"kind": Kind.HISTOGRAM, "name": "ampd_things", "bounds": tuple(range(60))}, "126 series"),
        ({"labels": (Label("job", ("a",)),)}, "'job' is reserved"),
        ({"labels": (Label("Cause", ("a",)),)}, "not lower case"),
        ({"labels": (Label("cause"),)}, "neither values nor a bound"),
        ({"labels": (Label("module", at_most=5000),)}, "5000 series"),
        ({"doc": ""}, "full stop"),
        ({"doc": "No full stop"}, "full stop"),
    ],
)
def test_the_lint_finds_each_broken_rule(change: dict[str, object], finding: str) -> None:
    """A family that breaks one rule gets a finding that names it."""
    broken = msgspec.structs.replace(GOOD, **change)

    assert any(finding in found for found in lint([broken])), lint([broken])


def test_the_lint_finds_a_name_that_is_there_twice() -> None:
    """Two families of one name would be two blocks on the page, which no scraper accepts."""
    assert lint([GOOD, GOOD]) == ["ampd_things_total: is in the table twice"]


def test_the_ledger_has_the_names_of_the_law() -> None:
    """Rules, dashboards and people rely on these names and labels."""
    labels = {f.name: tuple(label.name for label in f.labels) for f in FAMILIES}

    assert labels["ampd_windows_total"] == labels["ampd_windows_applied_total"] == ()
    assert labels["ampd_windows_quarantined_total"] == ()
    assert labels["ampd_windows_skipped_total"] == labels["ampd_fp32_fallbacks_total"] == ("cause",)
    assert labels["ampd_replays_total"] == ("cause", "to")


def test_the_whole_page_is_bounded() -> None:
    """One daemon never costs Prometheus more series than this, whatever the model is called."""
    assert sum(f.bound for f in FAMILIES) < 512


def test_explain_says_what_a_metric_means_and_how_to_ask_for_it() -> None:
    """Meaning, labels with their values, and a query to start from."""
    text = explain("ampd_fp32_fallbacks_total")

    assert family("ampd_fp32_fallbacks_total").doc in text
    assert all(cause in text for cause in CAUSE.values)
    assert "rate(ampd_fp32_fallbacks_total[5m])" in text


def test_explain_asks_a_histogram_for_a_quantile() -> None:
    """A histogram's own name is no series; what one asks for is made from its buckets."""
    assert "histogram_quantile(0.95, rate(ampd_window_duration_seconds_bucket[5m]))" in explain(
        "ampd_window_duration_seconds"
    )


def test_the_series_of_a_histogram_have_endings() -> None:
    """Expressions name these, and are held to the table by them."""
    series = family("ampd_window_duration_seconds").series

    assert set(series) == {f"ampd_window_duration_seconds_{end}" for end in ("bucket", "sum", "count")}
    assert series["ampd_window_duration_seconds_bucket"] == {"le"}


def test_explain_suggests_the_nearest_metric() -> None:
    """A misspelt name is answered with the one that was meant."""
    with pytest.raises(KeyError, match="did you mean 'ampd_loss_scale'"):
        explain("ampd_los_scale")


def test_the_reference_has_a_row_for_each_family() -> None:
    """The page is the table, all of it."""
    text = reference()

    assert [f.name for f in FAMILIES if f"| `{f.name}` |" not in text] == []
