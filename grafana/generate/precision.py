"""What mixed precision does to a job: which precision held when, what went wrong in it and why, what that cost.

Read from the top: what holds now, how the loss scale got there, which windows were not finite and by which cause,
whether learning noticed, and, for every precision that held in the period, what it gave. That last table is the answer
to "was the change good?", which is asked minutes after `ampctl set dtype=...` and cannot be read off a curve.
"""

from __future__ import annotations

from typing import Any

from grafana.generate import queries as q
from grafana.generate.frame import dashboard
from grafana.generate.panels import (
    BAD,
    CALM,
    OK,
    WARN,
    Column,
    Draft,
    Section,
    bars,
    heat,
    phases,
    series,
    stacked,
    stat,
    table,
    word,
)

_FALLBACK_STEPS = ((None, OK), (0.02, WARN), (0.1, BAD))
_LOST_STEPS = ((None, OK), (0.001, WARN), (0.01, BAD))
_LINES = {"thresholdsStyle": {"mode": "dashed"}}
_BARS = {"drawStyle": "bars", "fillOpacity": 60}
_LOG = {"scaleDistribution": {"type": "log", "log": 10}}
_HALVINGS = f"log2(({q.now('ampd_loss_scale')} > 0) / ({q.now('ampd_loss_scale_floor')} > 0))"


def precision() -> dict[str, Any]:
    """The dashboard as plain data."""
    return dashboard(
        uid="ampd-precision",
        title="Precision",
        description="What mixed precision does to a job: when each precision held, the loss scale, windows that fell back or "
        "were lost and why, what learning noticed, and what each precision gave.",
        sections=[_now(), _scale(), _fallbacks(), _learning(), _compared()],
    )


def _now() -> Section:
    native = [{"type": "value", "options": {"0": {"text": "native"}, "1": {"text": "emulated"}}}]
    return Section("Now", [
        word("Precision", "What windows are first attempted at. ampd_precision",
             (f"{q.now('ampd_precision')} == 1", "{{precision}}")),
        stat("Support", "Whether the device computes in that precision or only emulates it, which costs time. "
             "ampd_precision_emulated", (q.now("ampd_precision_emulated"), "{{instance}}"), "none",
             steps=((None, OK), (1, WARN)), defaults={"mappings": native}),
        stat("Loss scale now", "0 where the loss is not scaled. ampd_loss_scale", (q.now("ampd_loss_scale"), "{{instance}}"), "none"),
        stat("Halvings left", "How often the scale can still be halved before amp.min_scale stops it: at 0 it has collapsed. "
             "ampd_loss_scale, ampd_loss_scale_floor", (_HALVINGS, "{{instance}}"), "none",
             steps=((None, BAD), (1, WARN), (4, OK)), defaults={"decimals": 0}),
        stat("Fell back", "Share of windows that ran again in float32. ampd_fp32_fallbacks_total / ampd_windows_total",
             (q.per_window("ampd_fp32_fallbacks_total"), "{{instance}}"), "percentunit", steps=_FALLBACK_STEPS),
        stat("Fallbacks in period", "Windows that ran again in float32. ampd_fp32_fallbacks_total",
             (q.summed(q.in_period("ampd_fp32_fallbacks_total")), "{{instance}}"), "none",
             defaults={"decimals": 0}),
        stat("Lost in period", "Windows that were never applied. ampd_windows_skipped_total, ampd_windows_quarantined_total",
             (q.LOST_IN_PERIOD, "{{instance}}"), "none", steps=((None, OK), (1, WARN)), defaults={"decimals": 0}),
        stat("Limit passed", "Times in this period that an epoch went beyond amp.max_fp32_fallbacks. "
             "ampd_fallback_limit_reached_total",
             (q.summed(q.in_period("ampd_fallback_limit_reached_total")), "{{instance}}"), "none",
             steps=((None, OK), (1, WARN)), defaults={"decimals": 0}),
    ])  # fmt: skip


def _scale() -> Section:
    return Section("Precision and loss scale", [
        phases("Precision over time", "What windows were first attempted at, for each job. ampd_precision",
               (q.PRECISIONS, "{{instance}}"), [*q.PRECISION_COLORS.items()], width=24, height=4),
        series("Loss scale", "In powers of two, between its floor and its ceiling; nothing while the loss is not scaled. A scale "
               "that only falls looks for a floor that the model does not have. "
               "ampd_loss_scale, ampd_loss_scale_floor, ampd_loss_scale_ceiling",
               [(f"{q.now('ampd_loss_scale')} > 0", "scale {{instance}}"),
                (q.now("ampd_loss_scale_floor"), "floor {{instance}}"),
                (q.now("ampd_loss_scale_ceiling"), "ceiling {{instance}}")],
               width=16, custom={"scaleDistribution": {"type": "log", "log": 2}, "lineInterpolation": "stepAfter"}),
        series("Moves of the loss scale", "Back-offs follow overflows, growths follow amp.growth_interval good windows: in a calm job "
               "they alternate slowly. ampd_loss_scale_changes_total",
               [(q.summed(q.increase("ampd_loss_scale_changes_total"), "direction"), "{{direction}} {{instance}}")], "none",
               custom=_BARS),
    ])  # fmt: skip


def _fallbacks() -> Section:
    causes = (
        "forward: the loss or activations; scale: gradients, under a loss scale that was too large for them; "
        "backward: gradients, without a scale or at a smaller one too; constant: a number in the model that float16 cannot hold"
    )
    return Section("Windows that were not finite", [
        series("Share that fell back", "Each of these windows ran twice and was applied in float32. The lines are where the alerts "
               "AmpdFallbackSpike and AmpdFallbackHigh begin. ampd_fp32_fallbacks_total / ampd_windows_total",
               [(q.per_window("ampd_fp32_fallbacks_total"), "{{instance}}")], "percentunit",
               steps=_FALLBACK_STEPS, custom=_LINES),
        stacked("Fallbacks by cause", f"Windows a second. {causes}. ampd_fp32_fallbacks_total",
                [(q.summed(q.rate("ampd_fp32_fallbacks_total"), "cause"), "{{cause}} {{instance}}")], "ops"),
        bars("Causes in this period", "Fallbacks by cause, added up. ampd_fp32_fallbacks_total",
             [(f"sum by (cause) ({q.in_period('ampd_fp32_fallbacks_total')}) > 0", "{{cause}}")], "none",
             defaults={"decimals": 0}),
        stacked("Replays by rung", "Rungs of amp.ladder that were tried, a second: a window may try several. float16 is no rung, "
                "but a window run again after a module in it was widened. ampd_replays_total",
                [(q.summed(q.rate("ampd_replays_total"), "to"), "{{to}} {{instance}}")], "ops", width=6),
        stacked("Windows lost by cause", "Not finite even in float32, or nothing to fall back to: never applied. The data or the "
                "model is at fault. ampd_windows_skipped_total, ampd_windows_quarantined_total",
                [(q.summed(q.rate("ampd_windows_skipped_total"), "cause"), "{{cause}} {{instance}}"),
                 (q.rate("ampd_windows_quarantined_total"), "quarantined {{instance}}")], "ops", width=6),
        series("Mended by the engine", "At the sample after it happened: modules with a constant that float16 cannot hold now run in "
               "float32, micro-batches were divided for lack of memory, the run went back to a checkpoint, the scale is at its floor and "
               "windows are still not finite. ampd_modules_widened_total, ampd_memory_splits_total, ampd_rollbacks_total, "
               "ampd_loss_scale_stuck_total",
               [(q.increase("ampd_modules_widened_total"), "widened {{instance}}"),
                (q.increase("ampd_memory_splits_total"), "divided {{instance}}"),
                (q.increase("ampd_rollbacks_total"), "rolled back {{instance}}"),
                (q.increase("ampd_loss_scale_stuck_total"), "scale stuck {{instance}}")], "none", width=6, custom=_BARS),
        series("Share of low-precision windows", "Windows whose first attempt ran below float32: 0 means that mixed precision is "
               "off, whatever the job file says. ampd_windows_low_precision_total / ampd_windows_total",
               [(q.per_window("ampd_windows_low_precision_total"), "{{instance}}")], "percentunit", width=6, defaults={"min": 0, "max": 1}),
    ])  # fmt: skip


def _learning() -> Section:
    return Section("What learning noticed", [
        series("Loss", "Of the last window. A change of precision should leave no mark here. ampd_loss",
               [(q.now("ampd_loss"), "{{instance}}")]),
        series("Gradient norm", "Unscaled, before clipping: it climbs before a run overflows. ampd_grad_norm",
               [(q.now("ampd_grad_norm"), "{{instance}}")], custom=_LOG),
        series("Clipped windows", "Share of windows whose gradients were scaled down to clip.max_norm. "
               "ampd_windows_clipped_total / ampd_windows_total",
               [(q.per_window("ampd_windows_clipped_total"), "{{instance}}")], "percentunit", defaults={"min": 0}),
        heat("Gradient norms", "Of every window, unscaled and before clipping: a spike that no scrape met is here. "
             "ampd_window_grad_norm", q.buckets("ampd_window_grad_norm"), "none", width=12),
        series("Gradients lost to zero", "Share of gradients that are 0; measured in float16 without a loss scale only, where small "
               "ones vanish. ampd_grad_zeros_ratio",
               [(q.now("ampd_grad_zeros_ratio"), "{{instance}}")], "percentunit", width=6, defaults={"min": 0}),
        series("Bad in a row", "Windows never applied since the last one that was, and losses that were not finite. "
               "ampd_consecutive_skipped_windows, ampd_loss_nonfinite_total",
               [(q.now("ampd_consecutive_skipped_windows"), "never applied {{instance}}"),
                (q.increase("ampd_loss_nonfinite_total"), "losses not finite {{instance}}")], "none", width=6, defaults={"min": 0}),
    ])  # fmt: skip


def _compared() -> Section:
    return Section("What each precision gave", [
        _comparison(),
        bars("Memory kept", "By a micro-batch, for its backward pass, at each precision that ran. ampd_memory_kept_bytes",
             [(q.now("ampd_memory_kept_bytes"), "{{precision}} {{instance}}")], "bytes", height=7),
    ])  # fmt: skip


def _comparison() -> Draft:
    """While a precision held, times what was measured then: averages of each precision's own time."""
    held = f"({q.now('ampd_precision')} == 1)"

    def under(expr: str) -> str:
        return f"avg_over_time(({held} * on (job, instance) group_left () ({expr}))[$__range:])"

    of_time = f"avg_over_time({q.now('ampd_precision')}[$__range]) > 0"
    return table(
        "Before and after",
        "For every precision that held in this period, the mean over its own time. Choose a period with one change in it. "
        "ampd_precision, ampd_windows_total, ampd_fp32_fallbacks_total, ampd_windows_skipped_total, "
        "ampd_windows_quarantined_total, ampd_grad_norm",
        [
            Column(name="Job", label="instance"),
            Column(name="Precision", label="precision"),
            Column(name="Of the period", expr=_labelled(of_time), unit="percentunit"),
            Column(name="Windows/s", expr=_labelled(under(q.summed(q.rate("ampd_windows_total")))), unit="ops"),
            Column(name="Fell back", expr=_labelled(under(q.per_window("ampd_fp32_fallbacks_total"))),
                   unit="percentunit", steps=_FALLBACK_STEPS),
            Column(name="Lost", expr=_labelled(under(q.LOST_SHARE)), unit="percentunit", steps=_LOST_STEPS),
            Column(name="Gradient norm", expr=_labelled(under(q.now("ampd_grad_norm"))), unit="short"),
        ],
        width=16, height=7, steps=((None, CALM),),
    )  # fmt: skip


def _labelled(expr: str) -> str:
    return f"sum by (instance, precision) ({expr})"
