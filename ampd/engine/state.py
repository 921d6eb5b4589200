"""Everything that the next window depends on, as a tree for a checkpoint, and back.

Copies are on the host and shared with nobody, so that the writer may take its time. What the parts do not hold (the
position, the live configuration) is added by the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from ampd.core.ledger import Ledger
from ampd.engine.assembly import Parts
from ampd.engine.pipeline import Stateful
from ampd.engine.workload import Capturing


def capture(parts: Parts) -> dict[str, Any]:
    """The state of all parts; syncs with the device."""
    optimizer = parts.optimizer.state_dict()
    tree: dict[str, Any] = _on_host(
        {
            "model": parts.model.state_dict(),
            "buffers": dict(parts.model.named_buffers()),
            "optimizer": {"state": optimizer["state"], "groups": optimizer["param_groups"]},
            "stages": {
                name: stage.state_dict() for name, _slot, stage in parts.stages if isinstance(stage, Stateful)
            },
            "generators": parts.rewind.generators(),
            "workload": parts.workload.capture() if isinstance(parts.workload, Capturing) else {},
            "injector": parts.injector.state_dict(),
            "ledger": msgspec.to_builtins(parts.ledger),
        }
    )
    return tree


def restore(parts: Parts, saved: Mapping[str, Any]) -> None:
    """Put all parts back into a captured state; the generators last, since loading may draw from them."""
    parts.model.load_state_dict(saved["model"])
    buffers = dict(parts.model.named_buffers())
    for name, value in saved["buffers"].items():
        buffers[name].copy_(value)
    parts.optimizer.load_state_dict(_optimizer_state(saved["optimizer"]))
    for name, _slot, stage in parts.stages:
        if isinstance(stage, Stateful):
            stage.load_state_dict(saved["stages"][name])
    if isinstance(parts.workload, Capturing):
        parts.workload.restore(saved["workload"])
    parts.injector.load_state_dict(saved["injector"])
    _load_ledger(parts.ledger, saved["ledger"])
    parts.rewind.set_generators(saved["generators"])


def _on_host(node: Any) -> Any:
    """A copy of a state tree whose tensors are on the host and shared with nobody."""
    if isinstance(node, torch.Tensor):
        return node.detach().to("cpu", copy=True).contiguous()
    if isinstance(node, Mapping):
        return {key: _on_host(value) for key, value in node.items()}
    return node


def _optimizer_state(saved: Mapping[str, Any]) -> dict[str, Any]:
    """torch's own form of an optimizer's state: integer keys, tuples where it had tuples."""
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in saved["groups"]]
    return {"state": {int(index): entry for index, entry in saved["state"].items()}, "param_groups": groups}


def _load_ledger(ledger: Ledger, saved: Mapping[str, Any]) -> None:
    loaded = msgspec.convert(saved, Ledger)
    for name in Ledger.__struct_fields__:
        setattr(ledger, name, getattr(loaded, name))
