"""The faults that can be injected, by name; a module of its own so that clients load nothing else for it.

`diverge` changes a weight of one rank, which nothing undoes.
`oom` strikes in the forward pass, `oom-backward` in the backward pass, where the ranks of a group sum their gradients.
"""

from __future__ import annotations

from typing import Literal

Fault = Literal["overflow", "nan-loss", "nan-grad", "constant", "oom", "oom-backward", "diverge"]
