"""The PromQL that several dashboards ask, so that the same word means the same figure on each of them.

Counters are rated over `$__rate_interval`, which Grafana makes wide enough for the scrape interval; figures of the
whole period that is looked at use `$__range`. A divisor is guarded (`> 0`), because a job that stands still would
otherwise show NaN where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Sequence

from ampd.core.lifecycle import JobState
from ampd.core.precision import Precision
from grafana.generate.panels import JOB

STATE_COLORS = {
    JobState.STARTING: "light-blue", JobState.RUNNING: "green", JobState.PAUSED: "yellow", JobState.RECOVERING: "orange",
    JobState.STOPPING: "light-purple", JobState.STOPPED: "purple", JobState.COMPLETED: "blue", JobState.FAILED: "red",
}  # fmt: skip
PRECISION_COLORS = {Precision.FLOAT32: "blue", Precision.BFLOAT16: "green", Precision.FLOAT16: "purple"}


def _and(matchers: str) -> str:
    return f"{matchers}, " if matchers else ""


def now(metric: str, matchers: str = "") -> str:
    """The series of a family, for what was chosen at the top; `matchers` narrow it down."""
    return f"{metric}{{{_and(matchers)}{JOB}}}"


def rate(metric: str, matchers: str = "") -> str:
    """A second, of a counter."""
    return f"rate({now(metric, matchers)}[$__rate_interval])"


def increase(metric: str, matchers: str = "") -> str:
    """Since the sample before: what happened at this point of a curve."""
    return f"increase({now(metric, matchers)}[$__rate_interval])"


def in_period(metric: str, matchers: str = "") -> str:
    """In all of the period that is looked at."""
    return f"increase({now(metric, matchers)}[$__range])"


def buckets(histogram: str) -> str:
    """The cumulative buckets of a histogram, of all that was chosen together."""
    return f"sum by (le) ({increase(f'{histogram}_bucket')})"


def quantile(part: float, histogram: str) -> str:
    """The value that this part of what was observed does not exceed, estimated within a bucket."""
    # Without a value in the range a quantile is NaN, and NaN is not above 0: a gap is drawn instead.
    return f"histogram_quantile({part:g}, {summed(rate(f'{histogram}_bucket'), 'le')}) >= 0"


def summed(expr: str, *labels: str) -> str:
    """Added up, one series for each job and each value of `labels`."""
    return f"sum by ({', '.join(('job', 'instance', *labels))}) ({expr})"


def share(part: str, of: str) -> str:
    """A part of a whole, both one series for each job; nothing where the whole is 0."""
    return f"{part} / ({of} > 0)"


def among(parts: str, of: str) -> str:
    """Parts of a whole by one more label, the whole one series for each job."""
    return f"{parts} / on (job, instance) group_left () ({of} > 0)"


def per_window(metric: str) -> str:
    """A counter of windows, as a share of the windows that were finished meanwhile."""
    return share(summed(rate(metric)), summed(rate("ampd_windows_total")))


def which(metric: str, label: str, words: Sequence[str]) -> str:
    """One series for each job: the place, from 1, of the word of `label` whose series is 1; 0 for none of them."""
    coded = (f"{place} * {now(metric, matcher(label, word))}" for place, word in enumerate(words, 1))
    return summed(" or ".join(coded))


def matcher(label: str, value: str) -> str:
    """One value of one label."""
    return f'{label}="{value}"'


STATES = which("ampd_job_state", "state", [*STATE_COLORS])
PRECISIONS = which("ampd_precision", "precision", [*PRECISION_COLORS])

LOST = f"({summed(rate('ampd_windows_skipped_total'))} + {summed(rate('ampd_windows_quarantined_total'))})"
"""Windows a second that were never applied."""

LOST_SHARE = share(LOST, summed(rate("ampd_windows_total")))
LOST_IN_PERIOD = f"({summed(in_period('ampd_windows_skipped_total'))} + {summed(in_period('ampd_windows_quarantined_total'))})"

MEAN_LOSS = share(
    f"({summed(rate('ampd_loss_sum_total', matcher('sign', 'positive')))}"
    f" - {summed(rate('ampd_loss_sum_total', matcher('sign', 'negative')))})",
    summed(rate("ampd_loss_windows_total")),
)
"""Of all windows between two samples, exactly."""

PROGRESS = share(now("ampd_window"), now("ampd_window_target"))

TIME_LEFT = share(f"({now('ampd_window_target')} - {now('ampd_window')})", rate("ampd_windows_total"))

LAST_WINDOW_AGE = f"time() - ({now('ampd_last_progress_timestamp_seconds')} > 0)"

AT_RISK = f"clamp_min({now('ampd_window')} - {now('ampd_last_checkpoint_window')}, 0)"

GOODPUT = share(
    summed(rate("ampd_wall_seconds_total", 'activity="train"')),
    summed(rate("ampd_job_state_seconds_total", 'state=~"starting|running|recovering|stopping"')),
)
"""Seconds of training in a second in which the job was meant to train, as the alert on it has it: a worker that is down trains
nothing, and a pause that was asked for is no loss."""

ALERTS = f'ALERTS{{alertstate="firing", alertname=~"Ampd.*", {JOB}}}'
