"""The choice of a precision, with its reason, for every kind of device."""

from __future__ import annotations

import pytest

from ampd.core.precision import Capability, Precision, choose
from ampd.errors import ConfigError

F32, BF16, F16 = Precision.FLOAT32, Precision.BFLOAT16, Precision.FLOAT16

MODERN = Capability(device="H100", native=(F16, BF16))
OLD = Capability(device="T4", native=(F16,), emulated=(BF16,))
PLAIN = Capability(device="CPU", native=(), emulated=(BF16, F16))
BARE = Capability(device="toaster", native=())

CHOICES = [
    ("auto", MODERN, BF16, True), ("auto", OLD, F16, True), ("auto", PLAIN, F32, True), ("auto", BARE, F32, True),
    ("float16", MODERN, F16, True), ("bfloat16", OLD, BF16, False), ("float16", PLAIN, F16, False),
    ("float32", BARE, F32, True), ("float32", MODERN, F32, True),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "device", "precision", "is_native"), CHOICES)
def test_what_is_asked_for_is_chosen(
    asked: str, device: Capability, precision: Precision, is_native: bool
) -> None:
    """Auto takes the widest range that is native; a name is taken where the device runs it, and emulation is told."""
    choice = choose(asked, device)

    assert (choice.precision, choice.is_native) == (precision, is_native)


@pytest.mark.parametrize(
    ("asked", "device", "reason"),
    [
        ("auto", MODERN, "native on H100"),
        ("auto", BARE, "toaster runs no lower precision natively"),
        ("float16", MODERN, "named in the configuration"),
        ("float16", PLAIN, "named in the configuration; CPU emulates it"),
    ],
)
def test_a_choice_has_its_reason(asked: str, device: Capability, reason: str) -> None:
    """An operator who wonders why is told, by the device's name."""
    assert choose(asked, device).reason == reason


@pytest.mark.parametrize("asked", ["auto", "float16", "bfloat16", "float32"])
def test_amp_that_is_off_is_float32(asked: str) -> None:
    """Switched off, no dtype matters, nor whether the device could run it."""
    choice = choose(asked, BARE, enabled=False)

    assert (choice.precision, choice.reason) == (F32, "amp.enabled is false")


def test_a_device_that_cannot_is_refused() -> None:
    """The error says what the device does natively, and at which key."""
    with pytest.raises(
        ConfigError, match=r"'float16': toaster cannot run it; it runs natively: float32$"
    ) as refusal:
        choose("float16", BARE)

    assert refusal.value.field == "amp.dtype"
    assert refusal.value.hint


def test_emulation_is_refused_only_where_native_is_required() -> None:
    """`require_native` turns the warning into a refusal; a native dtype passes it."""
    with pytest.raises(ConfigError, match="T4 only emulates it; it runs natively: float32, float16"):
        choose("bfloat16", OLD, require_native=True)

    assert choose("float16", OLD, require_native=True).is_native


def test_only_float32_has_nothing_wider() -> None:
    """The low precisions are the two that can fall back."""
    assert [p for p in Precision if p.is_low] == [BF16, F16]
