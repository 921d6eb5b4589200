"""The end of a run in a dozen aligned lines.

Counts are of the job over all its restarts where a worker has told them; throughput is of this daemon's own
time in training, so that a resumed run is not flattered by windows that it did not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ampd.core.ledger import Counts, Span
from ampd.core.shown import in_bytes
from ampd.core.view import JobView
from ampd.telemetry.readings import precision_of, saved_window, seconds_of

Row = tuple[str, str]


def summary(view: JobView) -> str:
    """The rows as plain text, values aligned."""
    table = rows(view)
    width = max(len(name) for name, _value in table)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in table)


def rows(view: JobView) -> list[Row]:
    """What there is to know at a glance, as (name, value)."""
    return [
        ("job", _job(view)),
        ("windows", _windows(view)),
        ("loss", _loss(view)),
        ("held-out", _held_out(view)),
        ("fp32 fallbacks", tally(_counts(view).fp32_fallbacks)),
        ("precision", _precision(view)),
        ("loss scale", _scale(view)),
        ("throughput", _throughput(view)),
        ("memory", _memory(view)),
        ("checkpoint", _checkpoint(view)),
        ("directory", view.directory),
    ]


def tally(counts: Mapping[str, int]) -> str:
    """A sum with its parts, the greatest first: "5 (forward 3, scale 2)"."""
    parts = sorted(counts.items(), key=lambda part: (-part[1], part[0]))
    total = sum(counts.values())
    return f"{total} ({', '.join(f'{name} {count}' for name, count in parts)})" if total else "0"


def _counts(view: JobView) -> Counts:
    return view.snapshot.job if view.snapshot is not None else view.counts


def _job(view: JobView) -> str:
    message = view.result.message if view.result is not None else view.state_reason
    return f"{view.name}: {view.state}" + (f" ({message})" if message else "")


def _windows(view: JobView) -> str:
    counts = _counts(view)
    total = view.snapshot.total_windows if view.snapshot is not None else 0
    of = f" of {total}" if total else ""
    kept = f", quarantined {counts.quarantined}" if counts.quarantined else ""
    return f"{counts.applied} applied{of}, skipped {tally(counts.skipped)}{kept}"


def _loss(view: JobView) -> str:
    if view.snapshot is None:
        return "none yet"
    span = view.snapshot.span_loss
    left_out = f", {span.left_out} not finite left out" if span.left_out else ""
    last = "not finite" if view.snapshot.loss is None else f"{view.snapshot.loss:.4f}"
    return f"{last}{_spread(span, '.4f')}{left_out}" if view.snapshot.window else "none yet"


def _held_out(view: JobView) -> str:
    if view.last_evaluated is None:
        return "not evaluated"
    figures = ", ".join(f"{name} {value:.4f}" for name, value in view.last_evaluated.figures.items())
    best = f"; best loss {view.best_loss:.4f}" if view.best_loss is not None else ""
    return f"{figures} before window {view.last_evaluated.window}{best}"


def _precision(view: JobView) -> str:
    precision = precision_of(view)
    if precision is None:
        return "not chosen yet"
    return f"{precision} ({view.choice.reason})" if view.choice is not None else str(precision)


def _scale(view: JobView) -> str:
    if view.snapshot is None or view.snapshot.scale is None:
        return "off"
    return f"{view.snapshot.scale:g}{_spread(view.snapshot.span_scale, 'g')}"


def _spread(span: Span, spec: str) -> str:
    if span.least is None or span.mean is None or span.greatest is None:
        return ""
    return f" (min {span.least:{spec}}, mean {span.mean:{spec}}, max {span.greatest:{spec}} over {span.count} windows)"


def _throughput(view: JobView) -> str:
    counts = view.counts
    busy = sum(seconds_of(view).get(activity, 0.0) for activity in ("train", "data"))
    if not busy or not counts.windows:
        return "none yet"
    return ", ".join(_rates(counts, busy)) + f" over {busy:.1f} s of training"


def _rates(counts: Counts, busy: float) -> Iterator[str]:
    yield f"{counts.windows / busy:.2f} windows/s"
    yield f"{counts.samples / busy:.0f} samples/s"
    if counts.tokens:
        yield f"{counts.tokens / busy:.0f} tokens/s"


def _memory(view: JobView) -> str:
    snapshot = view.snapshot
    if snapshot is None or not snapshot.memory:
        return "not measured"
    parts = [f"{kind} {in_bytes(size)}" for kind, size in snapshot.memory.items()]
    if snapshot.saved is not None:
        parts.append(
            f"a micro-batch keeps {in_bytes(snapshot.saved.bytes)} less than in float32 ({snapshot.saved.basis})"
        )
    return ", ".join(parts)


def _checkpoint(view: JobView) -> str:
    saved = view.last_saved
    if saved is None:
        window = saved_window(view)
        return f"none by this daemon; resumed from window {window}" if window else "none yet"
    return (
        f"window {saved.window}, {in_bytes(saved.bytes)} in {saved.seconds:.2f} s "
        f"(the loop waited {saved.stall_seconds:.2f} s), {saved.path}"
    )
