"""Job files in a few words, for tests of the core."""

from __future__ import annotations

from typing import Any

from ampd.core.change import build
from ampd.core.config import JobConfig

LEAST = '[job]\nname = "toy"\ndirectory = "toy"\nwindows = 10\n[workload]\nname = "toy"\n'
"""The text of the shortest job file that is valid."""


def job(**sections: dict[str, Any]) -> JobConfig:
    """The configuration of the shortest job file, with some sections changed."""
    document: dict[str, Any] = {
        "job": {"name": "toy", "directory": "toy", "windows": 10},
        "workload": {"name": "toy"},
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section}
    return build(document)
