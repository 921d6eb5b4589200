"""What `digits` is and which options it takes; loads neither torch nor scikit-learn."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ampd.sdk import WorkloadSpec


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[workload.options] of the job file."""

    channels: Annotated[
        int,
        Meta(
            description="Channels of the first convolution; the second has twice, the third four times as many.",
            ge=1,
            le=512,
        ),
    ] = 16
    dropout: Annotated[
        float, Meta(description="Share of features dropped before the classifier.", ge=0, lt=1)
    ] = 0.3


DIGITS = WorkloadSpec(
    build="ampd_digits.workload:build",
    summary="a small convolutional network with BatchNorm and dropout on handwritten digits",
    options=Options,
)
