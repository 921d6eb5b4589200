"""Tensors inside what users pass to models and get from them: tuples, lists and mappings of any depth.

`rebuilt` puts other tensors in the places of those that `tensors_in` gives, in the same order. The types of containers
are kept, because a model's output is read by attribute as often as by key. torch has such functions in
`torch.utils._pytree`, which is private and drops mappings that it was not told of.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in `value`, depth first; anything that is no container is passed over."""
    match value:
        case Tensor():
            yield value
        case Mapping():
            for item in value.values():
                yield from tensors_in(item)
        case tuple() | list():
            for item in value:
                yield from tensors_in(item)


def rebuilt(value: Any, tensors: Iterator[Tensor]) -> Any:
    """A copy of `value` with `tensors` in the places of its own."""
    match value:
        case Tensor():
            return next(tensors)
        case MutableMapping():
            copied = copy.copy(value)
            for key in value:
                copied[key] = rebuilt(value[key], tensors)
            return copied
        case Mapping():
            return {key: rebuilt(item, tensors) for key, item in value.items()}
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(rebuilt(item, tensors) for item in value))
        case tuple() | list():
            return type(value)(rebuilt(item, tensors) for item in value)
    return value


def detached(value: Any) -> Any:
    """A copy whose tensors share memory with those of `value`, outside of its graph."""
    return rebuilt(value, (tensor.detach() for tensor in tensors_in(value)))


def joined(parts: list[Any]) -> Any:
    """One value from those of several parts of a batch: tensors one after the other, scalars as their mean."""
    if len(parts) == 1:
        return parts[0]
    return rebuilt(parts[0], map(_joined, zip(*map(tensors_in, parts), strict=True)))


def _joined(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat(tensors) if tensors[0].ndim else torch.stack(tensors).mean()
