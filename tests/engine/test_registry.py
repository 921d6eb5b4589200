"""Plugins by name: found through entry points, checked before they are built, and named in every error."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from ampd.core.spec import NoOptions, Slot, StageSpec, WorkloadSpec
from ampd.engine import registry
from ampd.errors import ConfigError, PluginError

BUILT_IN = {
    "stats": Slot.OBSERVE, "clip": Slot.SHAPE, "fallback": Slot.RECOVER, "scaler": Slot.SCALE, "autocast": Slot.CAST,
}  # fmt: skip


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a plugin."""

    width: Annotated[int, msgspec.Meta(description="How wide it is.", le=64)] = 4


class Needy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of which one has no default."""

    path: str
    deep: Options = Options()


SPEC = WorkloadSpec(build="nowhere:build", summary="for tests", options=Options)
NOT_A_SPEC = object()


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Workloads that an installed distribution would offer, by name; fill in what they refer to."""
    references: dict[str, str] = {}

    def entry_points(group: str) -> tuple[EntryPoint, ...]:
        return tuple(EntryPoint(name, value, group) for name, value in references.items())

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return references


@pytest.mark.parametrize(("name", "slot"), BUILT_IN.items())
def test_built_in_stages_come_through_the_same_door(name: str, slot: Slot) -> None:
    """They are entry points like anyone's, each in its slot, with a line of description."""
    spec = registry.stage_spec(name)

    assert spec.slot is slot
    assert spec.summary
    assert callable(registry.load(spec.build))


def test_what_is_installed_is_listed_by_name() -> None:
    """In alphabetical order, for `ampd plugins`."""
    names = list(registry.installed("ampd.stages"))

    assert set(BUILT_IN) <= set(names)
    assert names == sorted(names)


def test_an_unknown_stage_names_what_is_installed() -> None:
    """With the nearest name, and where to look."""
    with pytest.raises(PluginError, match="stage 'clipp' is not installed; did you mean 'clip'") as refusal:
        registry.stage_spec("clipp")

    assert "installed: autocast, clip, fallback, scaler, stats" in str(refusal.value)
    assert "ampd plugins" in str(refusal.value)


def test_with_nothing_installed_it_says_so(offered: dict[str, str]) -> None:
    """An empty list is not an empty sentence."""
    with pytest.raises(PluginError, match="workload 'digits' is not installed; installed: none"):
        registry.workload_spec("digits")


def test_a_spec_is_loaded_by_name(offered: dict[str, str]) -> None:
    """What the entry point refers to is what comes."""
    offered["mine"] = f"{__name__}:SPEC"

    assert registry.workload_spec("mine") is SPEC


def test_only_what_is_named_is_loaded(offered: dict[str, str]) -> None:
    """A broken plugin that no job names harms nobody."""
    offered.update(mine=f"{__name__}:SPEC", broken="no.such.module:SPEC")

    assert registry.workload_spec("mine") is SPEC
    assert "no" not in sys.modules


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("no.such.module:SPEC", "cannot be loaded: ModuleNotFoundError: No module named 'no';"),
        (f"{__name__}:MISSING", "cannot be loaded: AttributeError: module .* has no attribute 'MISSING'"),
        (f"{__name__}:NOT_A_SPEC", "is of type object, expected WorkloadSpec"),
        ("ampd.engine.stages.specs:CLIP", "is of type StageSpec, expected WorkloadSpec"),
    ],
)
def test_a_broken_plugin_is_named_with_its_reference(
    offered: dict[str, str], reference: str, problem: str
) -> None:
    """The error says which entry point, what it refers to, and what is wrong with it."""
    offered["mine"] = reference

    with pytest.raises(PluginError, match=problem) as refusal:
        registry.workload_spec("mine")

    assert f"workload 'mine' ({reference}, from " in str(refusal.value)


def test_options_are_checked_and_typed() -> None:
    """The plugin's own struct says what it takes; what is left out has its default."""
    assert registry.options_of(SPEC, {"width": 8}, "workload.options") == Options(width=8)
    assert registry.options_of(SPEC, {}, "workload.options") == Options()


@pytest.mark.parametrize(
    ("given", "message", "field"),
    [
        (
            {"widht": 1},
            r"workload.options.widht is not an option; did you mean 'width'",
            "workload.options.widht",
        ),
        (
            {"width": "wide"},
            r"workload.options.width = 'wide': expected `int`, got `str`",
            "workload.options.width",
        ),
    ],
)
def test_bad_options_are_refused_by_key(given: dict[str, Any], message: str, field: str) -> None:
    """The error names the table of the job file, and what the plugin knows."""
    with pytest.raises(ConfigError, match=message) as refusal:
        registry.options_of(SPEC, given, "workload.options")

    assert refusal.value.field == field
    assert refusal.value.hint


def test_a_plugin_without_options_says_so() -> None:
    """The hint does not list nothing."""
    spec = StageSpec(slot=Slot.SHAPE, build="a:b", summary="s", options=NoOptions)

    with pytest.raises(ConfigError) as refusal:
        registry.options_of(spec, {"x": 1}, "pipeline.options.mine")

    assert refusal.value.hint == "known: it has no options"


@pytest.mark.parametrize("reference", ["no.such.module:build", "ampd.core.order:build", "ampd.core.order"])
def test_a_reference_that_leads_nowhere_is_the_plugins_fault(reference: str) -> None:
    """It says which reference, and to reinstall."""
    with pytest.raises(PluginError, match=f"plugin reference '{reference}' cannot be loaded"):
        registry.load(reference)


@pytest.mark.parametrize(
    ("options", "given", "message", "hint"),
    [
        (Options, {"width": 65}, "width = 65: expected `int` <= 64", "How wide it is."),
        (Needy, {}, "path is missing", "known: path, deep"),
        (Needy, {"path": 3}, "path = 3: expected `str`, got `int`", "known: path, deep"),
        (
            Needy,
            {"path": "x", "deep": {"width": 0.5}},
            "deep.width = 0.5: expected `int`",
            "known: path, deep",
        ),
    ],
)
def test_a_bad_option_says_what_it_is(
    options: type[msgspec.Struct], given: dict[str, Any], message: str, hint: str
) -> None:
    """Its place, what was given and expected, and what its author wrote about it, else what there is."""
    spec = WorkloadSpec(build="a:b", summary="s", options=options)

    with pytest.raises(ConfigError, match=f"^workload.options.{message}") as refusal:
        registry.options_of(spec, given, "workload.options")

    assert refusal.value.hint == hint


def _complaining(_options: Options) -> None:
    raise ConfigError("the text is too short", field="workload.options.text")


def _broken(_options: Options) -> None:
    raise ZeroDivisionError("by nobody")


def test_a_check_that_breaks_is_the_plugins_fault() -> None:
    """`ampd check` shows what and where, and no traceback."""
    spec = WorkloadSpec(build="a:b", summary="s", check=f"{__name__}:_broken")

    with pytest.raises(
        PluginError, match=rf"_broken' failed: ZeroDivisionError: by nobody \({__file__}:\d+\)"
    ):
        registry.check(spec, Options())


def test_what_a_check_complains_of_is_the_operators_to_mend() -> None:
    """It comes through as it was said."""
    spec = WorkloadSpec(build="a:b", summary="s", check=f"{__name__}:_complaining")

    with pytest.raises(ConfigError, match=r"^the text is too short$"):
        registry.check(spec, Options())


def test_a_module_that_breaks_when_it_is_loaded_is_the_plugins_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises: to start the worker again would raise it again."""
    (tmp_path / "breaks_at_line_two.py").write_text("x = 1\nx / 0\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(
        PluginError, match=r"ZeroDivisionError: division by zero \(.*breaks_at_line_two.py:2\)"
    ):
        registry.load("breaks_at_line_two:build")


def _of_one(_options: Options) -> None:
    """A `build` that lacks its second parameter."""


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("_of_one", r"takes \(_options: .*, expected \(options, context\)"),
        ("SPEC", "is of type WorkloadSpec, expected a function"),
    ],
)
def test_a_build_of_another_form_is_refused(name: str, problem: str) -> None:
    """Before it is called, and with the parameters that it has."""
    spec = WorkloadSpec(build=f"{__name__}:{name}", summary="s")

    with pytest.raises(PluginError, match=problem):
        registry.build(spec, Options(), object())
