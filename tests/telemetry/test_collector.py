"""The collector: from a view to samples, closed, bounded, finite and monotonic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ampd.core.hardware import Hardware
from ampd.core.ledger import Cause, Counts
from ampd.core.lifecycle import JobState
from ampd.core.messages import Evaluated
from ampd.core.phase import Phase, Standing
from ampd.core.precision import Precision
from ampd.core.usage import Usage
from ampd.core.view import JobView
from ampd.telemetry.collector import JobCollector
from ampd.telemetry.cost import Cost
from ampd.telemetry.energy import Energy
from ampd.telemetry.family import Kind
from ampd.telemetry.metrics import FAMILIES
from ampd.telemetry.readings import read
from tests.telemetry import views
from tests.telemetry.servers import needs_servers, run_tool

BOUND = sum(family.bound for family in FAMILIES)

NAMES = st.text(max_size=80) | st.sampled_from([*Cause, *Precision, "loss", "other", "", "a\nb", '"}'])
NUMBERS = st.floats() | st.integers(0, 2**53).map(float)
TALLIES = st.dictionaries(NAMES, st.integers(0, 10**6), max_size=40)


class Page:
    """A view and the registry that renders it."""

    def __init__(self, view: JobView) -> None:
        self.view = view
        self.registry = CollectorRegistry()
        self.registry.register(JobCollector(lambda: self.view))

    def samples(self) -> dict[tuple[str, ...], float]:
        """All values by name and label values."""
        metrics = self.registry.collect()
        return {(s.name, *s.labels.values()): s.value for metric in metrics for s in metric.samples}


def test_readings_and_table_name_the_same_families() -> None:
    """A family that nobody reads, or a reading that no family shows, is a mistake."""
    own = Cost().readings().keys() | Energy().readings().keys() | {"ampd_telemetry_readings_left_out"}

    assert read(views.running()).keys() | own == {family.name for family in FAMILIES}


def test_every_counter_series_is_there_at_0_before_the_worker_speaks() -> None:
    """A series that appeared at 1 would have no increase: the first fallback would go unseen."""
    samples = Page(views.starting()).samples()

    counters = {
        f.name: math.prod(len(label.values) for label in f.labels)
        for f in FAMILIES
        if f.kind is Kind.COUNTER and f.from_start
    }
    found = {name: [v for key, v in samples.items() if key[0] == name] for name in counters}
    assert found == {name: [0.0] * count for name, count in counters.items()}


def test_what_nobody_has_measured_yet_is_absent_and_not_0() -> None:
    """A loss of 0 would be a figure, and a wrong one."""
    names = {key[0] for key in Page(views.starting()).samples()}

    assert names == {name for family in FAMILIES if family.from_start for name in family.series}


def test_the_ledger_shows_every_count_with_its_cause() -> None:
    """Windows are applied, skipped by cause or quarantined; replays and fallbacks say why and where to."""
    samples = Page(views.running()).samples()

    assert samples["ampd_windows_total",] == 400
    assert samples["ampd_windows_skipped_total", "data"] == 3
    assert samples["ampd_windows_quarantined_total",] == 1
    assert samples["ampd_fp32_fallbacks_total", "forward"] == 3
    assert samples["ampd_fp32_fallbacks_total", "constant"] == 0
    assert samples["ampd_replays_total", "forward", "retry"] == 1


def test_a_window_that_ran_again_at_float16_is_shown_as_that() -> None:
    """After a module was widened the same precision is tried once more: not on the ladder, and nothing unknown."""
    view = views.running()
    view.past = Counts(replays={"constant": {"float16": 2}})

    samples = Page(view).samples()

    assert samples["ampd_replays_total", "constant", "float16"] == 2
    assert samples["ampd_replays_total", "constant", "other"] == 0


@pytest.mark.parametrize("standing", [None, Standing(Phase.EVALUATION, 1.0, None)])
def test_the_phase_that_was_declared_is_1(standing: Standing | None) -> None:
    """All others are 0, and all of them before a worker has declared one."""
    view = views.running()
    view.standing = standing

    samples = Page(view).samples()

    shown = {phase for phase in Phase if samples["ampd_worker_phase", phase] == 1}
    assert shown == ({standing.phase} if standing is not None else set())


def test_exactly_one_state_and_one_precision_hold() -> None:
    """One gauge for each closed value: 1 for the one that holds."""
    samples = Page(views.running(state=JobState.PAUSED)).samples()

    assert {s: samples["ampd_job_state", s] for s in JobState} == {s: float(s == "paused") for s in JobState}
    assert {p: samples["ampd_precision", p] for p in Precision} == {
        p: float(p == "float16") for p in Precision
    }


def test_counters_go_on_over_a_worker_restart() -> None:
    """A dead worker's counts stay and the next one's come on top: Prometheus sees no reset."""
    page = Page(views.running())
    before = page.samples()

    page.view.past, page.view.past_seconds = views.COUNTS, {"train": 90.0}
    page.view.snapshots = {}
    between = page.samples()
    page.view.snapshots = {0: views.snapshot(counts=Counts(windows=7, applied=7), seconds={"train": 1.0})}
    after = page.samples()

    assert before["ampd_windows_total",] == between["ampd_windows_total",] == 400
    assert after["ampd_windows_total",] == 407
    assert after["ampd_wall_seconds_total", "train"] == 91


def test_a_histogram_has_every_bucket_from_the_start() -> None:
    """Cumulative, with a last bucket that is the count; the sum beside them."""
    view = views.running()
    for seconds in (0.02, 0.2, 0.2, 100.0):
        view.past_distributions.window_seconds.add(seconds)

    samples = Page(view).samples()

    buckets = {
        key[1]: value for key, value in samples.items() if key[0] == "ampd_window_duration_seconds_bucket"
    }
    assert (buckets["0.01"], buckets["0.025"], buckets["0.25"], buckets["60.0"], buckets["+Inf"]) == (
        0,
        1,
        3,
        3,
        4,
    )
    assert samples["ampd_window_duration_seconds_count",] == 4
    assert samples["ampd_window_duration_seconds_sum",] == pytest.approx(100.42)


def test_what_happened_to_the_engine_is_counted() -> None:
    """Modules that were widened, windows that were split, rollbacks, a scale at its floor, reloads."""
    told = {
        "module.widened": 1, "window.split": 2, "job.rolled_back": 3, "scale.stuck": 4, "config.reloaded": 5,
        "config.reload_refused": 6, "ranks.diverged": 9,
    }  # fmt: skip
    samples = Page(views.running(told=told, events_lost=7, precision_changes={"float16": 8})).samples()

    assert samples["ampd_modules_widened_total",] == 1
    assert samples["ampd_memory_splits_total",] == 2
    assert samples["ampd_rank_divergence_total",] == 9
    assert samples["ampd_rollbacks_total",] == 3
    assert samples["ampd_loss_scale_stuck_total",] == 4
    assert samples["ampd_config_reloads_total",] == 5
    assert samples["ampd_config_reload_failures_total",] == 6
    assert samples["ampd_events_lost_total",] == 7
    assert samples["ampd_precision_changes_total", "float16"] == 8


def test_time_in_the_present_state_grows_with_the_clock() -> None:
    """A job that has hung in `starting` for an hour shows it before it moves."""
    view = views.starting()
    registry = CollectorRegistry()
    registry.register(JobCollector(lambda: view))
    view.spend(60)

    assert registry.get_sample_value("ampd_job_state_seconds_total", {"state": "starting"}) == 60


def test_a_rollback_is_no_crash() -> None:
    """Workers that left to go back have a reason of their own, so that an alert on crashes can leave them out."""
    samples = Page(views.running(restarts={"rolled_back": 2, "crashed": 1})).samples()

    assert samples["ampd_worker_restarts_total", "rolled_back"] == 2
    assert samples["ampd_worker_restarts_total", "other"] == 0


def test_memory_saved_says_what_it_was_compared_with() -> None:
    """An estimate cannot pass for a measurement."""
    samples = Page(views.running()).samples()

    assert samples["ampd_memory_saved_bytes", "float32 window"] == 2_000_000
    assert ("ampd_memory_saved_bytes", "estimate by dtype") not in samples
    assert samples["ampd_memory_kept_bytes", "float16"] == 3_000_000


def test_the_size_of_the_group_is_what_the_worker_found() -> None:
    """`processes = "auto"` says no number; the rank that is ready does."""
    assert Page(views.starting()).samples()["ampd_world_size",] == 0
    assert Page(views.running(ready=views.ready(world=4))).samples()["ampd_world_size",] == 4


def test_a_reload_has_a_time() -> None:
    """So that one can ask whether the file that was written an hour ago was ever taken over."""
    assert Page(views.running()).samples()["ampd_config_last_reload_timestamp_seconds",] == 0

    view = views.running(told_at={"config.reloaded": views.STARTED + 7})

    assert Page(view).samples()["ampd_config_last_reload_timestamp_seconds",] == views.STARTED + 7


def test_the_run_names_its_configuration() -> None:
    """Two runs with one sum did the same."""
    keys = Page(views.running(config_sha256="5ca1ab1e")).samples()

    assert ("ampd_run_info", "b00t", "bytes", "bytegpt", "5ca1ab1e") in keys


@pytest.mark.parametrize(("state", "alive"), [(JobState.RUNNING, 1), (JobState.RECOVERING, 0)])
def test_a_worker_that_is_gone_is_not_alive(state: JobState, alive: int) -> None:
    """Its last snapshot stays for its figures, and proves no life."""
    assert Page(views.running(state=state)).samples()["ampd_ranks_alive",] == alive


def test_each_rank_has_its_limit_and_its_retries() -> None:
    """One rank that is out of memory is not the mean of sixteen."""
    ranks = {
        rank: views.snapshot(
            rank=rank, memory_limit=8.0 * 2**30, usage=Usage(allocator_retries=rank, shortages=9 * rank)
        )
        for rank in range(3)
    }
    samples = Page(views.running(snapshots=ranks, past_usage={2: Usage(allocator_retries=5)})).samples()

    assert [samples["ampd_allocator_retries_total", str(rank)] for rank in range(3)] == [0, 1, 7]
    assert [samples["ampd_out_of_memory_total", str(rank)] for rank in range(3)] == [0, 9, 18]
    assert samples["ampd_memory_limit_bytes", "2"] == 8 * 2**30
    assert ("ampd_memory_limit_bytes", "0") not in Page(views.running()).samples()


def test_each_rank_tells_what_it_trains_on() -> None:
    """Ranks of one job may be on different devices; a rank that has told nothing has no series."""
    devices = {0: "NVIDIA A10", 1: "NVIDIA L4", 2: ""}
    ranks = {
        rank: views.snapshot(rank=rank, hardware=Hardware(name=name, capability="8.6", memory_bytes=2**34))
        for rank, name in devices.items()
    }

    found = [key for key in Page(views.running(snapshots=ranks)).samples() if key[0] == "ampd_device_info"]

    assert found == [
        ("ampd_device_info", str(rank), name, "8.6", "", str(2**34)) for rank, name in devices.items() if name
    ]


def test_facts_of_more_ranks_than_fit_are_left_out() -> None:
    """The bound is on ranks; a fact itself may be any word."""
    ranks = {rank: views.snapshot(rank=rank, hardware=Hardware(name="L4")) for rank in range(20)}

    samples = Page(views.running(snapshots=ranks)).samples()

    assert sum(key[0] == "ampd_device_info" for key in samples) == 16


def test_an_unknown_cause_counts_as_other() -> None:
    """A label outside its closed set makes no series, and sums stay true."""
    counts = Counts(windows=5, skipped={"gremlins": 2, "data": 1, "imps": 2})
    samples = Page(views.running(snapshots={0: views.snapshot(counts=counts)})).samples()

    assert samples["ampd_windows_skipped_total", "other"] == 4
    assert sum(value for key, value in samples.items() if key[0] == "ampd_windows_skipped_total") == 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out_and_counted(value: float) -> None:
    """One NaN in a gauge makes every average over it NaN."""
    page = Page(views.running(last_evaluated=Evaluated(window=1, figures={"loss": value}, seconds=1.0)))

    samples = page.samples()

    assert ("ampd_evaluated_figure", "loss") not in samples
    assert samples["ampd_telemetry_readings_left_out", "nonfinite"] == 1


def test_a_workload_with_many_figures_shows_the_first_sixteen_for_good() -> None:
    """Names that change with every evaluation must not add up in the server over a week."""
    page = Page(views.running())
    shown = set()
    for turn in range(5):
        figures = {f"figure_{turn}_{n}": 1.0 for n in range(10)}
        page.view.last_evaluated = Evaluated(window=turn, figures=figures, seconds=1.0)
        shown |= {key for key in page.samples() if key[0] == "ampd_evaluated_figure"}

    assert len(shown) == 16
    assert page.samples()["ampd_telemetry_readings_left_out", "bound"] == 10


@pytest.mark.parametrize("name", ["", "two words", 'quo"te', "line\nbreak", "x" * 65, "\u202egpj.exe"])
def test_a_figure_whose_name_is_no_name_is_left_out_and_counted(name: str) -> None:
    """Labels are for machines: a name with spaces, quotes or tricks in it goes to the log and not to Prometheus."""
    page = Page(
        views.running(last_evaluated=Evaluated(window=1, figures={name: 1.0, "loss": 2.0}, seconds=1.0))
    )

    figures = {key: value for key, value in page.samples().items() if key[0] == "ampd_evaluated_figure"}

    assert figures == {("ampd_evaluated_figure", "loss"): 2.0}
    assert page.samples()["ampd_telemetry_readings_left_out", "bound"] == 1


def test_the_newest_checkpoint_of_a_resumed_job_is_the_one_it_resumed_from() -> None:
    """Else a job resumed at window 50000 would look as if it had saved nothing for 50000 windows."""
    view = views.running(last_saved=None, ready=views.ready(window=50_000, resumed=True))

    assert Page(view).samples()["ampd_last_checkpoint_window",] == 50_000


@settings(max_examples=60, deadline=None)
@given(
    tallies=st.lists(TALLIES, min_size=6, max_size=6), numbers=st.dictionaries(NAMES, NUMBERS, max_size=60)
)
def test_series_stay_bounded_and_finite_whatever_names_arrive(
    tallies: list[dict[str, int]], numbers: dict[str, float]
) -> None:
    """Hostile causes, rungs, reasons, figures, kinds of memory and ranks: closed sets, finite values, a parsable page."""
    skipped, fallbacks, rungs, restarts, requests, changes = tallies
    counts = Counts(skipped=skipped, fp32_fallbacks=fallbacks, replays=dict.fromkeys(restarts, rungs))
    snapshots = {
        rank: views.snapshot(counts=counts, memory=numbers, seconds=dict(restarts)) for rank in range(40)
    }
    figures = Evaluated(window=1, figures=numbers, seconds=1.0)
    view = views.running(
        snapshots=snapshots, restarts=restarts, requests=requests, changes=changes, last_evaluated=figures
    )

    page = Page(view)

    assert len(page.samples()) <= BOUND
    assert all(math.isfinite(value) for value in page.samples().values())
    assert page.samples()["ampd_fp32_fallbacks_total", "other"] <= sum(fallbacks.values())
    generate_latest(page.registry)


def test_the_openmetrics_page_parses() -> None:
    """The format is strict: names, units, order and the end are all checked by the parser."""
    text = openmetrics.generate_latest(Page(views.running()).registry).decode()  # type: ignore[no-untyped-call]  # untyped in the library

    parsed = {family.name for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]  # untyped in the library

    assert {"ampd_windows", "ampd_wall_seconds", "ampd_build"} <= parsed


@needs_servers
@pytest.mark.parametrize("view", [views.starting(), views.running()], ids=["starting", "running"])
def test_promtool_finds_nothing_wrong_with_the_page(view: JobView) -> None:
    """Prometheus's own lint of names, types and help texts."""
    page = generate_latest(Page(view).registry).decode()

    assert run_tool("promtool", "check", "metrics", stdin=page) == ""
