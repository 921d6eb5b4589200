"""The built-in stages as plugins see theirs: specs that load no torch."""

from ampd.core.spec import Slot, StageSpec

AUTOCAST = StageSpec(
    slot=Slot.CAST,
    build="ampd.engine.stages.autocast:build",
    summary="runs forward and loss in the attempt's precision",
)
SCALER = StageSpec(
    slot=Slot.SCALE,
    build="ampd.engine.stages.scaler:build",
    summary="scales the loss, unscales the gradients, judges the attempt",
)
FALLBACK = StageSpec(
    slot=Slot.RECOVER,
    build="ampd.engine.stages.fallback:build",
    summary="rewinds a window that was not finite and replays it wider",
)
STATS = StageSpec(
    slot=Slot.OBSERVE, build="ampd.engine.stages.stats:build", summary="keeps the AMP ledger's span figures"
)
CLIP = StageSpec(
    slot=Slot.SHAPE, build="ampd.engine.stages.clip:build", summary="scales gradients down to clip.max_norm"
)
