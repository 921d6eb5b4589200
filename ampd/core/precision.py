"""The precisions a window can run at, and the choice that `dtype = "auto"` makes.

Pure: the worker measures a `Capability` (the only part that needs torch) and this module decides. A choice
carries its reason, because an operator who sees float32 on a GPU wants to know why.
"""

from __future__ import annotations

import enum

import msgspec

from ampd.errors import ConfigError


class Precision(enum.StrEnum):
    """What autocast runs low-precision operations in; FLOAT32 means autocast off and TF32 off."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @property
    def is_low(self) -> bool:
        """True where there is a wider precision to fall back to."""
        return self is not Precision.FLOAT32


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker's device does natively, as measured by the worker at its start.

    `unfit` are native precisions in which a probe window of the job's own model was not finite.
    """

    device: str
    native: tuple[Precision, ...]
    emulated: tuple[Precision, ...] = ()
    detail: str = ""
    unfit: tuple[Precision, ...] = ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The precision that windows are first attempted at, and why; `is_native` False costs time."""

    precision: Precision
    reason: str
    is_native: bool = True


# Widest range first: bfloat16 has float32's exponent, so it cannot overflow where float32 does not.
_PREFERENCE = (Precision.BFLOAT16, Precision.FLOAT16)


def choose(
    asked: str, capability: Capability, *, require_native: bool = False, enabled: bool = True
) -> Choice:
    """The precision for `asked` ("auto" or a name) on a device with this capability.

    Raises ConfigError where the device cannot run it at all, or only by emulation under `require_native`.
    """
    if not enabled:
        return Choice(precision=Precision.FLOAT32, reason="amp.enabled is false")
    if asked == "auto":
        return _choose_native(capability)
    precision = Precision(asked)
    if precision is Precision.FLOAT32 or precision in capability.native:
        return Choice(precision=precision, reason="named in the configuration")
    if precision in capability.emulated and not require_native:
        return Choice(
            precision=precision,
            reason=f"named in the configuration; {capability.device} emulates it",
            is_native=False,
        )
    raise _refusal(precision, capability)


def _choose_native(capability: Capability) -> Choice:
    unfit = ", ".join(capability.unfit)
    why_not = f"; a probe window of the model was not finite in {unfit}" if unfit else ""
    for precision in _PREFERENCE:
        if precision in capability.native and precision not in capability.unfit:
            return Choice(precision=precision, reason=f"native on {capability.device}{why_not}")
    if unfit:
        return Choice(precision=Precision.FLOAT32, reason=why_not.removeprefix("; "))
    return Choice(precision=Precision.FLOAT32, reason=f"{capability.device} runs no lower precision natively")


def _refusal(precision: Precision, capability: Capability) -> ConfigError:
    native = ", ".join(("float32", *capability.native))
    how = "only emulates it" if precision in capability.emulated else "cannot run it"
    return ConfigError(
        f"amp.dtype = {precision.value!r}: {capability.device} {how}; it runs natively: {native}",
        field="amp.dtype",
        hint='use one of those, "auto", or set amp.require_native = false where it is emulated',
    )
