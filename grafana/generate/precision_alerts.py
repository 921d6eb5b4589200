"""Alerts about precision: what it costs, and what it loses."""

from __future__ import annotations

from grafana.generate.alert import FALLBACKS, LOST, LOST_COUNT, Alert
from grafana.generate.pace import HOUR, MINUTE, Pace


def precision_alerts(pace: Pace) -> list[Alert]:
    """Fallbacks, lost windows, the loss scale, memory."""
    return [
        _fallback_spike(pace), _fallback_high(pace), _windows_skipped(pace), _all_skipped(), _bad_window(pace), _scale_at_floor(),
        _memory_split(pace), _memory_near_limit(pace),
    ]  # fmt: skip


def _fallback_spike(pace: Pace) -> Alert:
    hour, short = pace.duration(HOUR), pace.duration(5 * MINUTE)
    # The hour before is compared with only where the job is that old; until then the absolute part decides alone.
    usual = f"(avg_over_time({FALLBACKS}[{hour}] offset {short}) and {FALLBACKS} offset {hour})"
    return Alert(
        name="AmpdFallbackSpike",
        severity="warning",
        expr=f"{FALLBACKS} > 0.02\nunless {FALLBACKS} <= 3 * {usual}\n",
        hold=5 * MINUTE,
        keep=15 * MINUTE,
        summary="Many more windows than usual fall back to float32 on {{ $labels.instance }}.",
        description="{{ $value | humanizePercentage }} of the windows of the last "
        f"{short} on {{{{ $labels.instance }}}} were not finite at low precision and ran again in float32.",
        panel="Fallbacks by cause",
    )


def _fallback_high(pace: Pace) -> Alert:
    short = pace.duration(5 * MINUTE)
    return Alert(
        name="AmpdFallbackHigh",
        severity="warning",
        expr=f"{FALLBACKS} > 0.1\n",
        hold=10 * MINUTE,
        keep=15 * MINUTE,
        summary="A large share of windows falls back to float32 on {{ $labels.instance }}.",
        description="{{ $value | humanizePercentage }} of the windows of the last "
        f"{short} on {{{{ $labels.instance }}}} ran twice: low precision costs time there instead of saving it.",
        panel="Fallbacks by cause",
    )


def _windows_skipped(pace: Pace) -> Alert:
    long = pace.duration(10 * MINUTE)
    return Alert(
        name="AmpdWindowsSkipped",
        severity="warning",
        expr=f"{LOST} > 0.01\nand {LOST_COUNT} >= 2\n",
        hold=2 * MINUTE,
        keep=10 * MINUTE,
        summary="Windows are lost on {{ $labels.instance }}.",
        description="{{ $value | humanizePercentage }} of the windows of the last "
        f"{long} on {{{{ $labels.instance }}}} were never applied: not even float32 made them finite, or fallback is off.",
        panel="Windows lost by cause",
    )


def _all_skipped() -> Alert:
    return Alert(
        name="AmpdAllWindowsSkipped",
        severity="critical",
        expr="ampd_consecutive_skipped_windows > 20\n",
        hold=MINUTE,
        summary="No window is applied any more on {{ $labels.instance }}.",
        description='The last {{ $value | printf "%.0f" }} windows on {{ $labels.instance }} were never applied: '
        "the job computes, and learns nothing.",
        panel="Windows lost by cause",
    )


def _bad_window(pace: Pace) -> Alert:
    long = pace.duration(10 * MINUTE)
    bad = f'increase(ampd_windows_skipped_total{{cause=~"data|model"}}[{long}])'
    return Alert(
        name="AmpdBadWindow",
        severity="info",
        expr=f"sum without (cause) ({bad}) + increase(ampd_windows_quarantined_total[{long}]) > 0\n",
        summary="A window was not finite even in float32 on {{ $labels.instance }}.",
        description=f"Windows on {{{{ $labels.instance }}}} within the last {long} that were not finite at any precision: "
        '{{ $value | printf "%.0f" }}. The data or the model is at fault, and none of them was applied.',
        panel="Windows lost by cause",
    )


def _memory_split(pace: Pace) -> Alert:
    long = pace.duration(10 * MINUTE)
    return Alert(
        name="AmpdMemorySplit",
        severity="warning",
        expr=f"increase(ampd_memory_splits_total[{long}]) > 0\n",
        summary="The device of {{ $labels.instance }} ran out of memory.",
        description='Micro-batches on {{ $labels.instance }} were divided {{ $value | printf "%.0f" }} times within the last '
        f"{long}: the job goes on with smaller ones, which takes longer.",
        panel="Memory",
    )


def _memory_near_limit(pace: Pace) -> Alert:
    long = pace.duration(10 * MINUTE)
    # A cache that has grown to the limit is no trouble by itself; one that must be given back to go on is.
    share = 'max without (kind) (ampd_memory_bytes{kind="reserved"}) / (ampd_memory_limit_bytes > 0)'
    return Alert(
        name="AmpdDeviceMemoryNearLimit",
        severity="warning",
        expr=f"{share} > 0.97\nand increase(ampd_allocator_retries_total[{long}]) > 0\n",
        hold=10 * MINUTE,
        summary="The device memory of rank {{ $labels.rank }} is nearly used up on {{ $labels.instance }}.",
        description="Rank {{ $labels.rank }} of {{ $labels.instance }} holds {{ $value | humanizePercentage }} of what it may, "
        "and its allocator had to give memory back to go on: each time costs time, and the next may fail.",
        panel="Share of the memory limit",
        dashboard="ampd-performance",
    )


def _scale_at_floor() -> Alert:
    return Alert(
        name="AmpdLossScaleAtFloor",
        severity="critical",
        expr="ampd_loss_scale <= ampd_loss_scale_floor\nand ampd_loss_scale > 0\n",
        hold=5 * MINUTE,
        summary="The loss scale has collapsed to its floor on {{ $labels.instance }}.",
        description="The loss scale on {{ $labels.instance }} is {{ $value | humanize }}, which amp.min_scale does not let "
        "fall further: small gradients vanish, or every window overflows.",
        panel="Loss scale",
    )
