"""The leaves of a state by path: what can be written, from what is nested.

A state is a tree of dicts whose leaves are tensors or plain data. Tuples come back as lists, keys as strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ampd.engine.rows import Rows


def flatten(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The leaves of a state by path: tensors, and plain data. Paths join keys by "/"."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for path, leaf in _leaves(state, ""):
        if isinstance(leaf, Tensor):
            tensors[path] = leaf
        else:
            plain[path] = leaf
    return tensors, plain


def parted(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Rows]]:
    """The leaves of a state by path: tensors, plain data, and rows of tensors that ranks have together."""
    tensors, others = flatten(state)
    parts = {path: leaf for path, leaf in others.items() if isinstance(leaf, Rows)}
    return tensors, {path: leaf for path, leaf in others.items() if path not in parts}, parts


def bytes_of(state: Mapping[str, Any]) -> int:
    """How much all tensors of a state take, those that ranks have together whole."""
    tensors, _plain, parts = parted(state)
    return sum(tensor.nbytes for tensor in tensors.values()) + sum(part.bytes for part in parts.values())


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree whose leaves are `leaves`."""
    state: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = (part.replace("%2F", "/").replace("%25", "%") for part in path.split("/"))
        node = state
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return state


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = prefix + str(key).replace("%", "%25").replace("/", "%2F")
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path + "/")
        else:
            yield path, value
