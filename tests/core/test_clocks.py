"""Wall clocks that jump, run backwards or stand still: the daemon decides the same, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, repeat
from typing import Any

import msgspec
import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.phase import Phase, Pulse
from ampd.core.stimuli import TimerKind
from tests.core.bench import Bench, job_config, snapshot

YEAR = 3.15e7
CLOCKS: dict[str, Callable[[], Iterable[float]]] = {
    "frozen": lambda: repeat(1000.0),
    "backwards": lambda: count(1000.0, -1.0),
    "a year ahead at every look": lambda: count(1000.0, YEAR),
    "a year back and forth": lambda: (1000.0 + YEAR * (-1) ** n for n in count()),
    "before 1970": lambda: count(-5.0, -0.1),
}


def _life(bench: Bench) -> Iterator[None]:
    """A life with everything that has to do with time: between two steps the clock may do as it likes."""
    config = job_config(watchdog__window_seconds=2.0)
    for step in (
        bench.boot, bench.hello, bench.get_ready, lambda: bench.report(snapshot(3)), bench.set,
        lambda: bench.apply(bench.acts[0]), lambda: bench.ask(p.Checkpoint()),
        lambda: bench.report(m.Saved(window=5, path="p", bytes=1, seconds=1.0, stall_seconds=0.1)),
        lambda: bench.report(snapshot(9)), lambda: bench.die(1), lambda: bench.fire(TimerKind.BACKOFF), bench.hello,
        lambda: bench.get_ready(5, revision=2), lambda: bench.feed(s.Reloaded(now=bench.now, config=config)),
        *(lambda: bench.feed(s.Pulsed(now=bench.now, pulse=Pulse(Phase.WINDOW, 1), elapsed_seconds=0.5)),) * 6,
        lambda: bench.feed(s.Dumped(now=bench.now, path="stacks.log")), lambda: bench.die(-9),
        lambda: bench.fire(TimerKind.BACKOFF), lambda: bench.signal("terminate"), lambda: bench.die(0),
    ):  # fmt: skip
        step()
        yield


def _decided(clock: Iterable[float]) -> list[Any]:
    """What was asked for, without the moments that events carry."""
    bench = Bench(job_config(watchdog__window_seconds=2.0))
    life = _life(bench)
    for now in clock:
        bench.now = now
        if next(life, "over") == "over":
            break
    assert bench.exits, "the story has an end"
    return [_timeless(instruction) for instruction in bench.instructions]


def _timeless(instruction: s.AnyInstruction) -> Any:
    if isinstance(instruction, s.Publish):
        return msgspec.structs.replace(instruction.event, time=0.0), instruction.level
    return instruction


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=list(CLOCKS))
def test_no_decision_hangs_on_the_wall_clock(clock: Callable[[], Iterable[float]]) -> None:
    """Every order, timer, reply, move and verdict of a hang is the same as under a clock that is right."""
    assert _decided(clock()) == _decided(count(1000.0, 0.5))
