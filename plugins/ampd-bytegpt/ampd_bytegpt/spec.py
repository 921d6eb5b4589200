"""What `bytegpt` is and which options it takes; loads no torch, so that a job file is validated without it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ampd.sdk import WorkloadSpec


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[workload.options] of the job file; the defaults are those that the README's figures were measured with."""

    text: Annotated[
        tuple[str, ...],
        Meta(
            description="Files to train on, joined; relative to the current directory. None: Python's manual."
        ),
    ] = ()
    context: Annotated[int, Meta(description="Bytes that the model looks back at most.", ge=8, le=4096)] = 128
    layers: Annotated[int, Meta(description="Transformer blocks.", ge=1, le=64)] = 4
    width: Annotated[
        int, Meta(description="Size of a position's vector; heads must divide it.", ge=8, le=8192)
    ] = 192
    heads: Annotated[int, Meta(description="Attention heads; width / heads must be even.", ge=1, le=64)] = 3
    ngram_rows: Annotated[
        int,
        Meta(
            description="Rows of the table of hashed byte pairs, and of that of triples; 0: none.",
            ge=0,
            le=2**24,
        ),
    ] = 8192
    dropout: Annotated[float, Meta(description="Share of activations dropped in training.", ge=0, lt=1)] = 0.0


BYTEGPT = WorkloadSpec(
    build="ampd_bytegpt.workload:build",
    summary="a byte-level decoder-only transformer on real text",
    options=Options,
    check="ampd_bytegpt.text:check",
)
