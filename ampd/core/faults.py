"""The faults that can be injected, by name; a module of its own so that clients load nothing else for it."""

from __future__ import annotations

from typing import Literal

Fault = Literal["overflow", "nan-loss", "nan-grad", "constant", "oom"]
