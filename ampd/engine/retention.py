"""Which checkpoints stay, and how the others go: out of sight in one rename, then deleted.

Only ever right after a save, when the newest is known to be good; so a crash in the middle of it leaves too many and
never too few, and what it leaves half deleted has a name that nobody reads and goes with the next.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from ampd.engine import checkpoint, disk
from ampd.errors import CheckpointError


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """Which checkpoints stay: the `last`, those at multiples of `every` windows, and the `best` by evaluated loss."""

    last: int
    every: int = 0
    best: int = 0


def prune(root: Path, keep: Keep) -> None:
    """Delete what `keep` does not name, and what earlier crashes left half done; raises OSError.

    Only for right after a save: the newest is known to be good then.
    """
    for path in sorted(set(checkpoint.listed(root)) - _kept(root, keep)):
        disk.remove(path)
    for path in root.glob(f".{checkpoint.PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def _kept(root: Path, keep: Keep) -> set[Path]:
    paths = checkpoint.listed(root)
    kept = set(paths[-keep.last :])
    if keep.every:
        kept |= {path for path in paths if _window_of(path) % keep.every == 0}
    if keep.best:
        losses = {path: loss for path in paths if (loss := _evaluated_loss(path)) is not None}
        kept |= set(sorted(losses, key=lambda path: losses[path])[: keep.best])
    return kept


def _window_of(path: Path) -> int:
    return checkpoint.numbers_of(path)[0]


def _evaluated_loss(path: Path) -> float | None:
    """The held-out loss of that very state, where it was evaluated; a manifest that is damaged has none."""
    try:
        loss = checkpoint.described(path).plain.get("evaluated/loss")
    except (OSError, msgspec.DecodeError, CheckpointError):
        return None
    return loss if isinstance(loss, float) else None
