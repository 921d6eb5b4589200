"""Composition: slots give the order, whatever the order of registration, and a missing verdict is never silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.change import change
from ampd.core.ledger import Ledger
from ampd.core.spec import Slot
from ampd.engine.execute import Execute
from ampd.engine.pipeline import (
    Abilities,
    Configurable,
    Proceed,
    Resettable,
    Stage,
    Stateful,
    compose,
    required_stage,
)
from ampd.engine.trainer import Trainer
from ampd.engine.window import Attempt, Outcome
from ampd.errors import PipelineError, PluginError
from tests.engine import toy
from tests.engine.rings import BAD_LOSS, FINITE, WHOLE_RUNS, Script, attempt_at, stage_of

Entry = tuple[str, Slot, Stage]


class Traced:
    """A stage that writes down when it is entered and left."""

    def __init__(self, name: str, trace: list[str]) -> None:
        self._name, self._trace = name, trace

    def __call__(self, attempt: Attempt, proceed: Proceed) -> Outcome:
        self._trace.append(f"+{self._name}")
        outcome = proceed(attempt)
        self._trace.append(f"-{self._name}")
        return outcome


def through(attempt: Attempt, proceed: Proceed) -> Outcome:
    """A stage that does nothing: it passes what comes, verdict or none."""
    return proceed(attempt)


def entries(names: Sequence[str], trace: list[str]) -> list[Entry]:
    """Traced stages by the names of their slots, in this order."""
    return [(name, Slot[name.split(".")[0]], Traced(name, trace)) for name in names]


SLOTS = [slot.name for slot in Slot]
WITHOUT_SHAPE: list[Entry] = [(slot.name, slot, through) for slot in Slot if slot is not Slot.SHAPE]


@pytest.mark.parametrize("order", list(permutations(SLOTS)), ids="-".join)
def test_the_order_of_registration_does_not_matter(order: tuple[str, ...]) -> None:
    """All 120 orders compose to the same nesting, outermost slot first."""
    trace: list[str] = []

    compose(entries(order, trace), Script(FINITE))(attempt_at("float32"))

    assert trace == [*(f"+{name}" for name in SLOTS), *(f"-{name}" for name in reversed(SLOTS))]


def test_within_a_slot_the_given_order_holds() -> None:
    """Of two shapers the first that is named is the outer one."""
    trace: list[str] = []
    names = ["CAST", "SHAPE.b", "SCALE", "SHAPE.a", "RECOVER", "OBSERVE.y", "OBSERVE.x"]

    compose(entries(names, trace), Script(FINITE))(attempt_at("float32"))

    assert trace[:4] == ["+OBSERVE.y", "+OBSERVE.x", "+SHAPE.b", "+SHAPE.a"]


@WHOLE_RUNS
@given(order=st.permutations(["stats", "clip", "fallback", "scaler", "autocast"]))
def test_built_in_stages_train_the_same_in_any_order(order: list[str]) -> None:
    """The job file may list stages as it likes: weights and ledger are the same, bit for bit."""
    assert trained(order) == trained(["autocast", "scaler", "fallback", "clip", "stats"])


def trained(stages: list[str]) -> tuple[dict[str, bytes], Ledger]:
    """What four windows, one with an overflow and one with a bad gradient, make of a toy with these stages."""
    subject = toy.trainer(
        amp={"dtype": "float16", "init_scale": 128.0}, clip={"max_norm": 0.5}, pipeline={"stages": stages}
    )
    toy.run(subject, range(4), {1: "overflow", 2: "nan-grad"})
    return toy.state_bytes(subject), subject.ledger


@pytest.mark.parametrize("slot", [slot for slot in Slot if slot.is_single])
def test_a_single_slot_must_be_filled(slot: Slot) -> None:
    """A pipeline without it is refused when it is composed, not when the first overflow comes."""
    rest = entries([name for name in SLOTS if name != slot.name], [])

    with pytest.raises(
        PipelineError, match=f"slot {slot.name} takes exactly one stage, the pipeline has none"
    ):
        compose(rest, Script())


@pytest.mark.parametrize("slot", [slot for slot in Slot if slot.is_single])
def test_a_single_slot_takes_no_second_stage(slot: Slot) -> None:
    """Both are named."""
    doubled = [*entries(SLOTS, []), ("intruder", slot, through)]

    with pytest.raises(
        PipelineError, match=f"the pipeline has {slot.name} and intruder; see \\[pipeline\\] stages"
    ):
        compose(doubled, Script())


def test_observers_and_shapers_are_optional() -> None:
    """Three stages are a pipeline."""
    attempt = attempt_at("float32")

    outcome = compose(entries(["RECOVER", "SCALE", "CAST"], []), Script(FINITE))(attempt)

    assert outcome.attempt is attempt


def test_calling_proceed_twice_runs_the_rest_twice() -> None:
    """That is what a replay is: everything inside runs again, everything outside does not."""
    trace: list[str] = []

    def again(attempt: Attempt, proceed: Proceed) -> Outcome:
        proceed(attempt)
        return proceed(attempt)

    stages = [e if e[0] != "RECOVER" else ("RECOVER", Slot.RECOVER, again) for e in entries(SLOTS, trace)]
    compose(stages, Script(BAD_LOSS, FINITE))(attempt_at("float16"))

    inside = ["+SCALE", "+CAST", "-CAST", "-SCALE"]
    assert trace == ["+OBSERVE", "+SHAPE", *inside, *inside, "-SHAPE", "-OBSERVE"]


def with_stage(subject: Trainer, name: str, stage: Stage) -> Trainer:
    """A trainer in whose pipeline one stage is another."""
    parts = subject.parts
    stages = [(n, slot, stage if n == name else s) for n, slot, s in parts.stages]
    execute = Execute(parts.workload, parts.parameters, parts.device)
    pipeline = compose(stages, execute)
    return Trainer(subject.config, replace(parts, stages=stages, pipeline=pipeline), subject.capability, 100)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_scale_stage_that_does_not_judge_is_found_out(dtype: str) -> None:
    """An attempt that nobody judged stops the run with the slot at fault, and changes no weight."""
    subject = with_stage(toy.trainer(amp={"dtype": dtype}), "scaler", through)
    before = toy.state_bytes(subject)["0.weight"]

    with pytest.raises(PipelineError, match="slot SCALE must"):
        subject.step(toy.window(0))

    assert toy.state_bytes(subject)["0.weight"] == before


def test_the_loop_applies_nothing_that_is_unjudged() -> None:
    """Even where recovery lets it pass too."""
    subject = with_stage(with_stage(toy.trainer(), "scaler", through), "fallback", through)
    before = toy.state_bytes(subject)["0.weight"]

    with pytest.raises(PipelineError, match=r"window 0.*slot SCALE must judge"):
        subject.step(toy.window(0))

    assert toy.state_bytes(subject)["0.weight"] == before


def test_capabilities_are_found_by_shape() -> None:
    """What a stage can do is told by its methods; a plain function can do nothing but run."""
    subject = toy.trainer()

    assert isinstance(stage_of(subject, "scaler"), Stateful)
    assert isinstance(stage_of(subject, "scaler"), Resettable)
    assert all(
        isinstance(stage_of(subject, n), Configurable) for n in ("stats", "clip", "fallback", "autocast")
    )
    assert not isinstance(through, Configurable | Stateful | Resettable)


def test_a_stage_that_returns_no_outcome_is_named() -> None:
    """It has forgotten to return what came back, or returns what it was given."""
    pipeline = compose(
        [*WITHOUT_SHAPE, ("lost", Slot.SHAPE, lambda attempt, _proceed: attempt)], Script(FINITE)
    )

    with pytest.raises(
        PipelineError, match="stage 'lost' returned something of type Attempt, expected the Outcome"
    ):
        pipeline(attempt_at("float32"))


def test_what_cannot_be_called_is_no_stage() -> None:
    """A `build` that returns nothing is found before the first window."""
    with pytest.raises(PluginError, match="stage 'mine' was built as something of type NoneType"):
        required_stage(None, "mine")

    assert required_stage(through, "mine") is through


def test_stages_are_told_apart_by_what_they_can_do() -> None:
    """Every ability has the stages with its methods, in their order; a plain function has none."""
    stages = toy.trainer().parts.stages
    names = {id(stage): name for name, _slot, stage in stages}

    able = Abilities.of([("plain", Slot.OBSERVE, through), *stages])

    assert [names[id(stage)] for stage in able.configurable] == [
        "stats",
        "clip",
        "fallback",
        "scaler",
        "autocast",
    ]
    assert [names[id(stage)] for stage in able.settling] == ["stats"]
    assert [names[id(stage)] for stage in able.dividing] == ["fallback"]
    assert [names[id(stage)] for stage in able.resettable] == ["scaler"]


class Asked:
    """A stage that counts how often it is asked for anything but its run."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, attempt: Attempt, proceed: Proceed) -> Outcome:
        return proceed(attempt)

    def __getattr__(self, name: str) -> object:
        self.asked.append(name)
        raise AttributeError(name)


@pytest.mark.parametrize("replay", ["sync", "adaptive"])
def test_no_stage_is_asked_in_a_window_or_at_a_change_what_it_can_do(replay: str) -> None:
    """It cannot learn anything new; and to be asked costs more than what is done then."""
    stage, subject = Asked(), toy.trainer(amp={"replay": replay, "risky_windows": 0})
    parts = replace(subject.parts, stages=[*subject.parts.stages, ("asked", Slot.OBSERVE, stage)])
    subject = Trainer(subject.config, parts, subject.capability, subject.total_windows)
    stage.asked.clear()

    for number in range(3):
        subject.step(toy.window(number))
    subject.drain()
    subject.configure(change(subject.config, {"optim.lr": 0.5}))
    subject.reset_scale()
    subject.divide(2)

    assert stage.asked == []
