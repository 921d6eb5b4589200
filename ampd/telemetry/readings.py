"""What each family reads off a `JobView`: one function for each group of the table, nothing but look-ups.

A reading is a number (None where nothing was measured), a histogram, or a mapping of numbers by label value, nested
where a family has two labels. What a reading may become on the page is the collector's business.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TypeAlias

from ampd import __version__
from ampd.core.flops import peak_of
from ampd.core.histogram import Histogram
from ampd.core.ledger import Span
from ampd.core.observed import worked
from ampd.core.precision import Precision
from ampd.core.view import JobView

Reading: TypeAlias = "float | Mapping[str, Reading] | Histogram | None"
Readings = dict[str, Reading]


def read(view: JobView) -> Readings:
    """The reading of every family of the table but the collector's own.

    A node that follows has those of its own ranks and of its daemon. What is the job's is on its leader's page, so that
    a sum over nodes counts a window once.
    """
    own = _identity(view) | _lifecycle(view) | _memory(view) | _hardware(view)
    own["ampd_rank_work_seconds_total"] = {str(rank): seconds for rank, seconds in worked(view).items()}
    if view.leader is not None:
        return own
    return (
        own | _told(view) | _progress(view) | _ledger(view) | _learning(view) | _precision(view) | _checkpoints(view)
    )  # fmt: skip


def add(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """Two tallies as one."""
    return {key: a.get(key, 0) + b.get(key, 0) for key in (*a, *(key for key in b if key not in a))}


def precision_of(view: JobView) -> Precision | None:
    """The precision of first attempts: what the loop runs, or what was chosen before the first window."""
    if view.snapshot is not None:
        return view.snapshot.precision
    return view.choice.precision if view.choice is not None else None


def saved_window(view: JobView) -> int:
    """The window that a crash now would go back to: the newest checkpoint, or the one that was resumed from."""
    if view.last_saved is not None:
        return view.last_saved.window
    return view.ready.window if view.ready is not None else 0


def seconds_of(view: JobView) -> dict[str, float]:
    """Seconds by activity since this daemon started, over all its workers."""
    return add(view.past_seconds, view.snapshot.seconds if view.snapshot is not None else {})


def _identity(view: JobView) -> Readings:
    torch = view.ready.torch_version if view.ready is not None else ""
    device = view.ready.capability.device if view.ready is not None else ""
    return {
        "ampd_build_info": {__version__: {torch: {platform.python_version(): {device: 1}}}},
        "ampd_run_info": {view.boot: {view.name: {view.config.workload.name: {view.config_sha256: 1}}}},
        "ampd_node_info": _node(view),
        "ampd_job_state": {view.state: 1},
        "ampd_job_state_since_timestamp_seconds": view.state_since,
        "ampd_job_start_timestamp_seconds": view.started,
        "ampd_config_revision": view.revision,
        "ampd_world_size": view.ready.world if view.ready is not None else view.world,
        "ampd_ranks_alive": len(view.snapshots) if view.state.has_worker else 0,
        "ampd_worker_phase": {view.standing.phase: 1} if view.standing is not None else {},
        "ampd_worker_heartbeat_timestamp_seconds": _by_rank(view, view.heard),
    }


def _node(view: JobView) -> Readings:
    leader = view.leader.host if view.leader is not None else view.place.host
    role = "leader" if view.leader is None else "follower"
    return {view.place.node or view.place.host: {role: {leader: 1}}}


def _by_rank(view: JobView, own: Mapping[int, Reading]) -> Readings:
    """By the number that a rank has in the job, of what is known by its number on this node."""
    return {str(view.first_rank + number): each for number, each in own.items()}


def _lifecycle(view: JobView) -> Readings:
    return {
        "ampd_worker_restarts_total": view.restarts,
        "ampd_job_state_seconds_total": view.state_seconds,
        "ampd_config_changes_total": view.changes,
        "ampd_control_requests_total": view.requests,
        "ampd_control_refusals_total": view.refusals,
        "ampd_events_total": view.levels,
        "ampd_config_reloads_total": view.told.get("config.reloaded", 0),
        "ampd_config_reload_failures_total": view.told.get("config.reload_refused", 0),
        "ampd_config_last_reload_timestamp_seconds": view.told_at.get("config.reloaded", 0),
        "ampd_events_lost_total": view.events_lost,
        "ampd_wall_seconds_total": seconds_of(view),
    }


def _told(view: JobView) -> Readings:
    """What is counted by the events that told of it, so that the page and `ampctl events` cannot disagree."""
    return {
        "ampd_rollbacks_total": view.told.get("job.rolled_back", 0),
        "ampd_modules_widened_total": view.told.get("module.widened", 0),
        "ampd_memory_splits_total": view.told.get("window.split", 0),
        "ampd_rank_divergence_total": view.told.get("ranks.diverged", 0),
        "ampd_loss_scale_stuck_total": view.told.get("scale.stuck", 0),
    }


def _progress(view: JobView) -> Readings:
    snapshot, ready = view.snapshot, view.ready
    counts = view.counts
    return {
        "ampd_window": snapshot.window if snapshot else ready.window if ready else 0,
        "ampd_window_target": snapshot.total_windows if snapshot else ready.total_windows if ready else 0,
        "ampd_epoch": snapshot.epoch if snapshot else 0,
        "ampd_last_progress_timestamp_seconds": view.last_progress,
        "ampd_samples_processed_total": counts.samples,
        "ampd_tokens_processed_total": counts.tokens,
        "ampd_windows_sampled_total": view.distributions.sampled.windows,
        "ampd_sampled_window_seconds_total": view.distributions.sampled.seconds,
        "ampd_model_flops_total": view.distributions.flops,
        "ampd_peak_flops_per_second": _peak(view),
        "ampd_window_duration_seconds": view.distributions.window_seconds,
        "ampd_windows_recomputed_total": view.windows_recomputed,
    }


def _peak(view: JobView) -> float | None:
    """Of all ranks together; None where the device is not known, or none has been found yet."""
    precision, ready = precision_of(view), view.ready
    if precision is None or ready is None:
        return None
    peak = peak_of(ready.capability.device, precision, allows_tf32=view.config.amp.enable_tf32)
    return None if peak is None else peak * ready.world


def _ledger(view: JobView) -> Readings:
    counts, snapshot = view.counts, view.snapshot
    return {
        "ampd_windows_total": counts.windows,
        "ampd_windows_applied_total": counts.applied,
        "ampd_windows_skipped_total": counts.skipped,
        "ampd_windows_quarantined_total": counts.quarantined,
        "ampd_windows_low_precision_total": counts.low_precision,
        "ampd_windows_clipped_total": counts.clipped,
        "ampd_replays_total": counts.replays,
        "ampd_fp32_fallbacks_total": counts.fp32_fallbacks,
        "ampd_consecutive_skipped_windows": snapshot.skipped_in_a_row if snapshot else 0,
        "ampd_fallback_limit_reached_total": view.limit_reached,
        "ampd_loss_nonfinite_total": counts.nonfinite_losses,
        "ampd_loss_scale_changes_total": {"growth": counts.scale_growths, "backoff": counts.scale_backoffs},
    }


def _learning(view: JobView) -> Readings:
    snapshot, evaluated = view.snapshot, view.last_evaluated
    losses = view.distributions.losses
    return {
        "ampd_loss": snapshot.loss if snapshot else None,
        "ampd_loss_sum_total": {"positive": losses.positive, "negative": losses.negative},
        "ampd_loss_windows_total": losses.windows,
        "ampd_span_loss": _statistics(snapshot.span_loss) if snapshot else None,
        "ampd_grad_norm": snapshot.grad_norm if snapshot else None,
        "ampd_window_grad_norm": view.distributions.grad_norm,
        "ampd_grad_zeros_ratio": snapshot.zeros if snapshot else None,
        "ampd_learning_rate": snapshot.lr if snapshot else 0,
        "ampd_evaluated_figure": evaluated.figures if evaluated else None,
        "ampd_evaluated_window": evaluated.window if evaluated else None,
        "ampd_evaluation_duration_seconds": evaluated.seconds if evaluated else None,
        "ampd_best_evaluated_loss": view.best_loss,
    }


def _precision(view: JobView) -> Readings:
    snapshot, amp = view.snapshot, view.config.amp
    precision = precision_of(view)
    return {
        "ampd_precision": {precision: 1} if precision is not None else {},
        "ampd_precision_changes_total": view.precision_changes,
        "ampd_precision_emulated": view.choice is not None and not view.choice.is_native,
        "ampd_tf32_allowed": amp.enable_tf32,
        "ampd_loss_scale": (snapshot.scale or 0) if snapshot else 0,
        "ampd_loss_scale_floor": amp.min_scale,
        "ampd_loss_scale_ceiling": amp.max_scale,
        "ampd_span_loss_scale": _statistics(snapshot.span_scale) if snapshot else None,
        "ampd_fallback_limit": amp.max_fp32_fallbacks,
    }


def _memory(view: JobView) -> Readings:
    snapshot = view.snapshot
    saved = snapshot.saved if snapshot else None
    return {
        "ampd_memory_bytes": _by_rank(view, {rank: each.memory for rank, each in view.snapshots.items()}),
        "ampd_memory_limit_bytes": _by_rank(
            view, {rank: each.memory_limit or None for rank, each in view.snapshots.items()}
        ),
        "ampd_allocator_retries_total": _by_rank(
            view, {rank: used.allocator_retries for rank, used in view.usage.items()}
        ),
        "ampd_out_of_memory_total": _by_rank(
            view, {rank: used.shortages for rank, used in view.usage.items()}
        ),
        "ampd_memory_kept_bytes": {name: kept.total for name, kept in snapshot.kept.items()}
        if snapshot
        else None,
        "ampd_memory_saved_bytes": {saved.basis: saved.bytes} if saved else None,
    }


def _hardware(view: JobView) -> Readings:
    found = {number: last.hardware for number, last in view.snapshots.items() if last.hardware.name}
    return {
        "ampd_device_info": _by_rank(
            view,
            {n: {h.name: {h.capability: {h.driver: {str(h.memory_bytes): 1}}}} for n, h in found.items()},
        )
    }


def _checkpoints(view: JobView) -> Readings:
    saved = view.last_saved
    return {
        "ampd_checkpoints_total": view.checkpoints,
        "ampd_checkpoint_failures_total": view.checkpoint_failures,
        "ampd_checkpoints_set_aside_total": view.checkpoints_set_aside,
        "ampd_checkpoint_interval_windows": view.config.checkpoint.every_windows,
        "ampd_last_checkpoint_window": saved_window(view),
        "ampd_last_checkpoint_timestamp_seconds": view.last_saved_at,
        "ampd_last_checkpoint_size_bytes": saved.bytes if saved else 0,
        "ampd_checkpoint_duration_seconds": view.checkpoint_seconds,
        "ampd_last_checkpoint_duration_seconds": saved.seconds if saved else 0,
        "ampd_last_checkpoint_stall_seconds": saved.stall_seconds if saved else 0,
    }


def _statistics(span: Span) -> Readings:
    return {"least": span.least, "mean": span.mean, "greatest": span.greatest}
