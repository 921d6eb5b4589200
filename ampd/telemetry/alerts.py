"""What the daemon would wake somebody for, judged from its own state: for the status page, without a Prometheus.

The names, thresholds and spans are those of the shipped Prometheus rules (a test holds them together), so that
`ampctl explain NAME` and the runbooks answer for both. One thing differs on purpose: a rule waits for minutes before it
pages, a page that somebody is looking at says at once what holds now. `AmpdDown` is not here: a daemon that is gone
shows no page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from ampd.core.lately import Tally
from ampd.core.lifecycle import JobState
from ampd.core.phase import LONG
from ampd.core.replies import window_of
from ampd.core.view import JobView
from ampd.telemetry.readings import saved_window

MINUTE = 60.0
HOUR = 60 * MINUTE

SPIKE, SPIKE_TIMES, HIGH = 0.02, 3, 0.1
LOST, LOST_WINDOWS = 0.01, 2
STALLED_SECONDS, STALLED_WINDOWS = 5 * MINUTE, 20
SILENT_SECONDS = MINUTE
IN_A_ROW = 20
INTERVALS = 3
RESTARTS, FAILED_SAVES = 3, 2

Severity = Literal["critical", "warning"]


class Alert(msgspec.Struct, frozen=True):
    """One thing that needs somebody; `name` is that of the Prometheus rule and of the runbook."""

    name: str
    severity: Severity
    says: str


def alerts(view: JobView, now: float) -> list[Alert]:
    """Those that hold at `now` (Unix seconds), the critical ones first."""
    found = [*_ended(view), *_standing(view, now), *_precision(view, now), *_safety(view, now)]
    return sorted(found, key=lambda alert: alert.severity)


def _ended(view: JobView) -> Iterator[Alert]:
    if view.state is JobState.FAILED:
        yield Alert(
            "AmpdJobFailed", "critical", "The job has failed and will not be started again by itself."
        )


def _standing(view: JobView, now: float) -> Iterator[Alert]:
    hour = view.lately.between(now - HOUR, now)
    usual = STALLED_WINDOWS * HOUR / hour.windows if hour.windows else 0.0
    silence = now - min(view.heard.values(), default=now)
    is_long = view.standing is not None and view.standing.phase in LONG
    if view.state.has_worker and not is_long and silence > max(SILENT_SECONDS, usual):
        yield Alert("AmpdWorkerSilent", "critical", f"A rank has said nothing for {silence:.0f} s.")
    gap = now - max(view.last_progress, view.state_since)
    if view.state is JobState.RUNNING and gap > max(STALLED_SECONDS, usual):
        says = f"Running, but the last window ended {gap / MINUTE:.0f} minutes ago."
        yield Alert("AmpdTrainingStalled", "critical", says)


def _precision(view: JobView, now: float) -> Iterator[Alert]:
    if view.state.is_final:
        return
    floor, snapshot = view.config.amp.min_scale, view.snapshot
    if snapshot is not None and snapshot.scale is not None and 0 < snapshot.scale <= floor:
        says = (
            f"The loss scale is at its floor of {floor:g}: small gradients vanish, or every window overflows."
        )
        yield Alert("AmpdLossScaleAtFloor", "critical", says)
    if snapshot is not None and snapshot.skipped_in_a_row > IN_A_ROW:
        says = f"The last {snapshot.skipped_in_a_row} windows were never applied: nothing is learned."
        yield Alert("AmpdAllWindowsSkipped", "critical", says)
    yield from _fallbacks(view, now)
    lost = view.lately.between(now - 10 * MINUTE, now)
    if lost.lost >= LOST_WINDOWS and lost.lost_ratio > LOST:
        says = f"{lost.lost_ratio:.1%} of the windows of the last 10 minutes were never applied."
        yield Alert("AmpdWindowsSkipped", "warning", says)


def _fallbacks(view: JobView, now: float) -> Iterator[Alert]:
    recent = view.lately.between(now - 5 * MINUTE, now)
    says = f"{recent.fallback_ratio:.1%} of the windows of the last 5 minutes fell back to float32."
    if recent.fallback_ratio > HIGH:
        yield Alert("AmpdFallbackHigh", "warning", says)
    elif recent.fallback_ratio > SPIKE and not _is_usual(view, recent, now):
        yield Alert("AmpdFallbackSpike", "warning", says)


def _is_usual(view: JobView, recent: Tally, now: float) -> bool:
    """Whether the hour before was much the same; a job that is younger has nothing to compare with."""
    begin, end = now - HOUR, now - 5 * MINUTE
    before = view.lately.between(begin, end)
    return view.lately.covers(begin) and recent.fallback_ratio <= SPIKE_TIMES * before.fallback_ratio


def _safety(view: JobView, now: float) -> Iterator[Alert]:
    if not view.state.is_final:
        yield from _repeated(view, now - HOUR / 2)
    at_risk, interval = window_of(view) - saved_window(view), view.config.checkpoint.every_windows
    saves = not view.is_attached and view.leader is None
    if view.state is JobState.RUNNING and saves and at_risk > INTERVALS * interval:
        says = f"A crash now would lose {at_risk} windows, more than {INTERVALS} checkpoint intervals."
        yield Alert("AmpdCheckpointStale", "warning", says)


def _repeated(view: JobView, begin: float) -> Iterator[Alert]:
    """What may happen once, and not again and again."""
    restarts = sum(at >= begin for at in view.lately.restarts)
    if restarts >= RESTARTS:
        says = f"The worker was started again {restarts} times in the last 30 minutes."
        yield Alert("AmpdWorkerCrashLooping", "critical", says)
    failed = sum(at >= begin for at in view.lately.failed_saves)
    if failed >= FAILED_SAVES:
        says = f"{failed} checkpoints could not be written in the last 30 minutes; the last good one stands."
        yield Alert("AmpdCheckpointFailing", "critical", says)
