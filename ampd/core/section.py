"""How a key of the job file is written down: its type, bounds, unit and doc, and whether it is live.

One description serves validation, `ampctl get`, completion and error messages, so it stands at the key and nowhere
else. A key that is `live` may be changed while the job runs and takes effect at a window boundary; a `fixed` one
holds for the life of a worker and is refused with what to do instead.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Meta


def live(doc: str, *, unit: str = "", **bounds: Any) -> Meta:
    """Describe a key that can be changed while the job runs."""
    return Meta(description=doc, extra={"live": True, "unit": unit, "form": ""}, **bounds)


def fixed(doc: str, *, unit: str = "", form: str = "", **bounds: Any) -> Meta:
    """Describe a key that only a restart of the job changes; `form` says in words what a pattern or a union takes."""
    return Meta(description=doc, extra={"live": False, "unit": unit, "form": form}, **bounds)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the job file: frozen, keyword-only, and no key is ever silently ignored."""
