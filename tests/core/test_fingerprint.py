"""The sum over a configuration: the same for the same values, another for any other."""

from __future__ import annotations

import re

from ampd.core.change import build, override
from ampd.core.config import JobConfig
from ampd.core.fingerprint import fingerprint


def made(**amp: object) -> JobConfig:
    """A configuration with some of its amp section written out."""
    job = {"name": "bytes", "directory": "runs/bytes", "windows": 10}
    return build({"job": job, "workload": {"name": "bytegpt", "options": {"b": 1, "a": 2}}, "amp": amp})


def test_it_is_a_sha256() -> None:
    """Of a length that everybody knows, and nothing that would have to be escaped."""
    assert re.fullmatch(r"[0-9a-f]{64}", fingerprint(made()))


def test_a_default_that_is_written_out_changes_nothing() -> None:
    """It is about what runs, not about how the file says it."""
    assert fingerprint(made(growth_interval=2000)) == fingerprint(made())


def test_the_order_of_options_changes_nothing() -> None:
    """A table of TOML has no order."""
    turned = build({"workload": {"options": {"a": 2, "b": 1}, "name": "bytegpt"},
                    "job": {"windows": 10, "directory": "runs/bytes", "name": "bytes"}})  # fmt: skip

    assert fingerprint(turned) == fingerprint(made())


def test_any_other_value_is_another_sum() -> None:
    """Live or not: the daemon began with it."""
    others = [
        override(made(), {"optim.lr": 0.5}),
        override(made(), {"job.windows": 11}),
        made(dtype="float16"),
    ]

    assert len({fingerprint(each) for each in (made(), *others)}) == 4
