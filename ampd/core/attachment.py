"""The one line that an attached daemon writes to the program that started it: where it is, or why it is not."""

from __future__ import annotations

import msgspec


class Attached(msgspec.Struct, frozen=True, kw_only=True, tag="attached"):
    """It serves. `link` is where the program is to report, `endpoint` where `ampctl` asks, `http` where /metrics is."""

    link: str
    endpoint: str
    http: str
    pid: int


class NotAttached(msgspec.Struct, frozen=True, kw_only=True, tag="not-attached"):
    """It could not begin, and is gone."""

    message: str
    exit_code: int
    field: str = ""
    hint: str = ""


Answer = Attached | NotAttached
