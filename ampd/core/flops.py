"""The work of a window in floating point operations, from one that was counted, and the peak that it is held against.

Work is counted in a few windows and taken per sample in all others, because to count is to look at every operation in Python.
A peak comes from the maker's data sheet, dense and without sparsity, and only for devices whose name says which of them it is:
a wrong peak makes a utilisation that looks right, so a device that is not here has none, and the job file may give it.
"""

from __future__ import annotations

import msgspec

from ampd.core.precision import Precision


class Flops(msgspec.Struct, frozen=True, kw_only=True):
    """Operations of one attempt, forward and backward, by the dtype that they ran in, and the samples that it ran."""

    by_dtype: dict[str, int]
    samples: int

    def of(self, samples: int) -> dict[str, float]:
        """As many operations a sample, for so many samples."""
        return {dtype: count * samples / self.samples for dtype, count in self.by_dtype.items()}


class Peak(msgspec.Struct, frozen=True):
    """Operations a second that a device does at most: matrix products of 16 bits, of TF32, and of true float32."""

    half: float
    tf32: float
    single: float


_H100 = Peak(989e12, 494e12, 67e12)
PEAKS = {
    "NVIDIA H200": _H100,
    "NVIDIA H100 80GB HBM3": _H100,
    "NVIDIA H100 PCIe": Peak(756e12, 378e12, 51e12),
    "NVIDIA H100 NVL": Peak(835e12, 417e12, 60e12),
    "NVIDIA A100-SXM4-40GB": Peak(312e12, 156e12, 19.5e12),
    "NVIDIA A100-SXM4-80GB": Peak(312e12, 156e12, 19.5e12),
    "NVIDIA A100-PCIE-40GB": Peak(312e12, 156e12, 19.5e12),
    "NVIDIA A100 80GB PCIe": Peak(312e12, 156e12, 19.5e12),
    "NVIDIA A10": Peak(125e12, 62.5e12, 31.2e12),
    "NVIDIA A30": Peak(165e12, 82e12, 10.3e12),
    "NVIDIA L4": Peak(121e12, 60e12, 30.3e12),
    "NVIDIA L40S": Peak(362e12, 183e12, 91.6e12),
    "Tesla V100-SXM2-16GB": Peak(125e12, 15.7e12, 15.7e12),
    "Tesla V100-SXM2-32GB": Peak(125e12, 15.7e12, 15.7e12),
    "Tesla V100-PCIE-16GB": Peak(112e12, 14e12, 14e12),
    "Tesla V100-PCIE-32GB": Peak(112e12, 14e12, 14e12),
    "Tesla T4": Peak(65e12, 8.1e12, 8.1e12),
}
"""By the whole name that the driver gives. Before Ampere there is no TF32, and float32 is float32."""


def peak_of(device: str, precision: Precision, *, allows_tf32: bool) -> float | None:
    """Operations a second that `device` does at most at a precision; None where nobody has told."""
    peak = PEAKS.get(device)
    if peak is None:
        return None
    if precision.is_low:
        return peak.half
    return peak.tf32 if allows_tf32 else peak.single
