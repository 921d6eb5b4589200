"""Specs: where stages sit, and that options are never silently ignored."""

from __future__ import annotations

import msgspec
import pytest

from ampd.core.spec import NoOptions, Slot, StageSpec, WorkloadSpec


def test_slots_go_from_outermost_to_innermost() -> None:
    """The order is a law: recovery must see what scaling judged, and observe what recovery ended with."""
    assert [slot.name for slot in sorted(Slot)] == ["OBSERVE", "SHAPE", "RECOVER", "SCALE", "CAST"]


def test_the_three_inner_slots_take_one_stage() -> None:
    """There is one recovery, one scale and one cast in a step."""
    assert [slot.name for slot in Slot if slot.is_single] == ["RECOVER", "SCALE", "CAST"]


def test_a_plugin_without_options_takes_none() -> None:
    """An option given to a plugin that has none is an error."""
    with pytest.raises(msgspec.ValidationError, match="unknown field `x`"):
        msgspec.convert({"x": 1}, NoOptions)


def test_specs_need_no_options_nor_generators() -> None:
    """The least that a plugin says is what it builds and what it is for."""
    stage = StageSpec(slot=Slot.SHAPE, build="a:b", summary="s")
    workload = WorkloadSpec(build="a:b", summary="s")

    assert (stage.options, workload.options) == (NoOptions, NoOptions)
    assert (workload.host_rng, workload.check) == (False, "")


def test_a_spec_cannot_be_changed() -> None:
    """A plugin's description is the same for everyone who reads it."""
    spec = StageSpec(slot=Slot.SHAPE, build="a:b", summary="s")

    with pytest.raises(AttributeError, match="immutable"):
        spec.build = "c:d"  # type: ignore[misc]  # that it is refused is the point
