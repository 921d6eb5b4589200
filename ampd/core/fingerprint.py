"""One short word for all the values of a configuration, so that two runs can be told alike without reading both.

A sum over the values and not over the job file: a comment, a moved section or a default that was written out changes
nothing that runs, and must not look as if it did.
"""

from __future__ import annotations

import hashlib

import msgspec

from ampd.core.config import JobConfig


def fingerprint(config: JobConfig) -> str:
    """SHA-256 over every value of a configuration, in hexadecimal."""
    return hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest()
