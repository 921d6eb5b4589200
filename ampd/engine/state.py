"""Everything that the next window depends on, as a tree for a checkpoint, and back.

Copies are on the host and shared with nobody, so that the writer may take its time. What the parts do not hold (the
position, the live configuration) is added by the loop.

Of a group rank 0 keeps the state, since all ranks have the same, and from the others what is theirs alone: their
generators, and what their workload captures. A group of another size may go on from it: what is common is the same
for any number of ranks, a rank that was there before gets back its own, and one that is new keeps the generators that it
was seeded with at its start. So no sample is lost or repeated, but dropout masks and the order of sums are others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import safetensors.torch
import torch

from ampd.core.ledger import Ledger
from ampd.engine.assembly import Parts
from ampd.engine.leaves import flatten, unflatten
from ampd.engine.pipeline import Stateful
from ampd.engine.rows import Rows
from ampd.engine.workload import Capturing


def capture(parts: Parts) -> dict[str, Any]:
    """The state of all parts; on ranks other than 0 the rows that they alone have. Syncs with device and ranks."""
    own = _own(parts)
    peers = parts.ranks.gather(_packed(own))[1:] if parts.ranks.world > 1 else []
    weights, moments = parts.ranks.to_save(parts.model, parts.optimizer)
    if parts.ranks.rank:
        rest: dict[str, Any] = _on_host({"model": weights, "optimizer": {"state": moments}})
        return rest
    tree: dict[str, Any] = _on_host(
        {
            "model": weights,
            "buffers": dict(parts.model.named_buffers()),
            "optimizer": {"state": moments, "groups": parts.optimizer.state_dict()["param_groups"]},
            "stages": {
                name: stage.state_dict() for name, _slot, stage in parts.stages if isinstance(stage, Stateful)
            },
            **own,
            "peers": {str(rank): _unpacked(content) for rank, content in enumerate(peers, 1)},
            "injector": parts.injector.state_dict(),
            "ledger": msgspec.to_builtins(parts.ledger),
        }
    )
    return tree


def restore(parts: Parts, saved: Mapping[str, Any]) -> None:
    """Put all parts back into a captured state; the generators last, since loading may draw from them."""
    own = _own_of(parts, saved)
    entries = {int(number): entry for number, entry in saved["optimizer"]["state"].items()}
    weights, moments = parts.ranks.to_load(saved["model"], entries, parts.model, parts.optimizer)
    parts.model.load_state_dict(weights)
    buffers = dict(parts.model.named_buffers())
    for name, value in saved["buffers"].items():
        buffers[name].copy_(value)
    parts.optimizer.load_state_dict({"state": moments, "param_groups": _groups(saved["optimizer"]["groups"])})
    for name, _slot, stage in parts.stages:
        if isinstance(stage, Stateful):
            stage.load_state_dict(saved["stages"][name])
    if isinstance(parts.workload, Capturing):
        parts.workload.restore(own["workload"])
    parts.injector.load_state_dict(saved["injector"])
    _load_ledger(parts.ledger, saved["ledger"])
    parts.rewind.set_generators(own["generators"])


def _own(parts: Parts) -> dict[str, Any]:
    """What each rank has for itself."""
    captured = parts.workload.capture() if isinstance(parts.workload, Capturing) else {}
    return {"generators": parts.rewind.generators(), "workload": captured}


def saved_by(saved: Mapping[str, Any]) -> int:
    """How many ranks a captured state is of."""
    return 1 + len(saved.get("peers", {}))


def _own_of(parts: Parts, saved: Mapping[str, Any]) -> Mapping[str, Any]:
    rank = parts.ranks.rank
    if rank == 0:
        return saved
    newcomer = {"generators": {}, "workload": saved["workload"]}
    own: Mapping[str, Any] = saved.get("peers", {}).get(str(rank), newcomer)
    return own


def _packed(tree: Mapping[str, Any]) -> bytes:
    tensors, plain = flatten(_on_host(tree))
    return msgspec.msgpack.encode((safetensors.torch.save(tensors), plain))


def _unpacked(content: bytes) -> dict[str, Any]:
    tensors, plain = msgspec.msgpack.decode(content, type=tuple[bytes, dict[str, Any]])
    return unflatten(plain | safetensors.torch.load(tensors))


def _on_host(node: Any) -> Any:
    """A copy of a state tree whose tensors are on the host and shared with nobody."""
    if isinstance(node, torch.Tensor):
        return node.detach().to("cpu", copy=True).contiguous()
    if isinstance(node, Mapping):
        return {key: _on_host(value) for key, value in node.items()}
    if isinstance(node, Rows):
        return replace(node, tensor=_on_host(node.tensor))
    return node


def _groups(saved: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An optimizer's groups in torch's own form: tuples where it had tuples."""
    return [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in saved]


def _load_ledger(ledger: Ledger, saved: Mapping[str, Any]) -> None:
    loaded = msgspec.convert(saved, Ledger)
    for name in Ledger.__struct_fields__:
        setattr(ledger, name, getattr(loaded, name))
