"""Safetensors as we write them: the library reads every tensor back, of each type and shape that the format has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ampd.engine import disk, tensor_file


def written(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Through a file, and back by the library."""
    disk.write(path, tensor_file.chunks(tensors))
    return load_file(path)


@pytest.mark.parametrize("dtype", tensor_file.NAMES, ids=str)
def test_every_type_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    """To the bit."""
    tensor = torch.arange(24, dtype=torch.float32).view(2, 3, 4).to(dtype)

    back = written(tmp_path / "file", {"t": tensor})["t"]

    assert (back.dtype, back.shape) == (dtype, tensor.shape)
    assert torch.equal(back.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_sizes_may_be_mixed(tmp_path: Path) -> None:
    """Scalars, empty ones, odd numbers of bytes, a transposed view, names of any script."""
    tensors = {
        "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3), "odd": torch.ones(3, dtype=torch.uint8),
        "view": torch.arange(6.0).view(2, 3).t(), "größe/μ": torch.ones(1, dtype=torch.float64),
    }  # fmt: skip

    back = written(tmp_path / "file", tensors)

    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_a_type_that_the_format_lacks_is_named(tmp_path: Path) -> None:
    """Which tensor, and of what type."""
    with pytest.raises(TypeError, match=r"model/w is of torch\.complex128"):
        list(tensor_file.chunks({"model/w": torch.zeros(1, dtype=torch.complex128)}))
