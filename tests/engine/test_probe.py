"""dtype = "auto" is chosen by what the device does natively and by one window of the job's own model."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from ampd.core.precision import Capability, Precision
from ampd.engine.assembly import equip
from ampd.engine.trainer import Trainer
from tests.engine import toy

NATIVE = Capability(device="GPU", native=(Precision.FLOAT16, Precision.BFLOAT16))


class Overflowing(toy.Toy):
    """Not finite where matrix products are not float32."""

    def loss(self, micro_batch: Any) -> Tensor:
        predicted: Tensor = self.model(micro_batch.tensors["x"])
        big = (predicted.float() * 0 + 1e30).to(predicted.dtype)
        overflow: Tensor = (big * 1e10 * 0).float().mean()
        return overflow + super().loss(micro_batch)


def test_a_finite_probe_keeps_the_choice_and_changes_nothing() -> None:
    """bfloat16 is taken, and the run after the probe equals one without it."""
    probed = trainer(toy.Toy())
    probed.probe(toy.window(0))
    toy.run(probed, range(3))
    plain = trainer(toy.Toy())
    toy.run(plain, range(3))

    assert probed.choice.precision == "bfloat16"
    assert toy.state_bytes(probed) == toy.state_bytes(plain)


def test_a_model_that_overflows_gets_float32_with_the_reason() -> None:
    """What the device does natively does not help a model that is not finite in it."""
    subject = trainer(Overflowing())

    subject.probe(toy.window(0))

    assert subject.choice.precision == "float32"
    assert "not finite in bfloat16, float16" in subject.choice.reason


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_named_dtype_is_not_probed(dtype: str) -> None:
    """Who names a dtype gets it; the guard takes care of the rest."""
    subject = trainer(Overflowing(), dtype=dtype)

    subject.probe(toy.window(0))

    assert subject.choice.precision == dtype


def test_what_the_probe_found_is_remembered() -> None:
    """A resumed run does not ask again, or it could choose otherwise than the run never stopped."""
    subject = trainer(Overflowing())
    subject.probe(toy.window(0))
    resumed = trainer(Overflowing())

    resumed.load_state_dict(subject.state_dict())

    assert resumed.choice == subject.choice


def trainer(workload: toy.Toy, **amp: Any) -> Trainer:
    """A trainer on a device that does everything natively."""
    config = toy.config(amp=amp)
    return Trainer(config, equip(config, workload, toy.CPU, lambda _report: None), NATIVE, 100)
