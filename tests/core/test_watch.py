"""The judgement of a hang: by the worker's pulse, in time that the daemon observed, within budgets that are learned."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.budgets import LATELY_MINUTES, Budgets, Longest, bound_of
from ampd.core.config import JobConfig, WatchdogSection
from ampd.core.lifecycle import JobState
from ampd.core.phase import Phase, Pulse, Standing
from ampd.core.watch import MOST_BETWEEN_LOOKS_SECONDS
from tests.core.bench import Bench, job_config

CONFIG = job_config(
    watchdog__least_seconds=2.0, watchdog__window_seconds=5.0, watchdog__evaluation_seconds=60.0
)
STACKS = s.Dumped(now=1000.0, path="run/stacks.log")


class Worker:
    """A worker's pulse, and a daemon that looks at it ten times a second."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.pulse = Pulse()

    def declare(self, phase: Phase) -> None:
        self.pulse = Pulse(phase, self.pulse.beats + 1)

    def stands(self, seconds: float, *, step: float = 0.1) -> list[s.AnyInstruction]:
        """Look on for so long; what was asked for."""
        out: list[s.AnyInstruction] = []
        for _ in range(round(seconds / step)):
            pulsed = s.Pulsed(now=self.bench.now, pulse=self.pulse, elapsed_seconds=step)
            out += self.bench.feed(pulsed)
        return out

    def trains(self, windows: int, seconds: float) -> None:
        """Windows that take so long each."""
        for _ in range(windows):
            self.declare(Phase.WINDOW)
            self.stands(seconds)


@pytest.fixture
def worker(make_bench: Callable[..., Bench]) -> Worker:
    """A worker that runs windows."""
    running = Worker(make_bench(CONFIG).running())
    running.declare(Phase.INIT)
    running.trains(3, 0.1)
    return running


def test_a_worker_that_stands_still_is_ended(worker: Worker) -> None:
    """Its stacks first, while there are some; then it is told, and killed with all that it started."""
    assert worker.stands(2.5) == [s.DumpStacks((7,))]

    *told, kill = worker.bench.feed(STACKS)

    assert kill == s.Kill(gently=False)
    assert [i.event.name for i in told if isinstance(i, s.Publish)] == ["worker.hung"]
    assert worker.bench.events[-1].fields == {
        "rank": 0, "phase": "window", "seconds": 2.0, "budget_seconds": 2.0, "stacks": "run/stacks.log", "note": "",
    }  # fmt: skip


def test_a_hang_is_judged_once(worker: Worker) -> None:
    """However long the kernel takes to end a process."""
    worker.stands(2.5)
    worker.bench.feed(STACKS)

    assert worker.stands(20.0) == []


def test_a_hung_worker_is_replaced_and_counted(worker: Worker) -> None:
    """As a crash is, under its own reason."""
    worker.stands(2.5)
    worker.bench.feed(STACKS)
    worker.bench.die(-9)

    assert worker.bench.view.state == "recovering"
    assert worker.bench.view.state_reason.startswith("a hang in phase window: no progress for 2")
    assert worker.bench.view.restarts == {"hung": 1}
    worker.bench.restart().get_ready()
    assert worker.bench.view.state == "running"


def test_the_next_crash_is_no_hang(worker: Worker) -> None:
    """Each worker has a verdict of its own."""
    worker.stands(2.5)
    worker.bench.feed(STACKS)
    worker.bench.die(-9)
    worker.bench.restart().get_ready()
    worker.bench.die(1)

    assert worker.bench.view.restarts == {"hung": 1, "crashed": 1}


@pytest.mark.parametrize("phase", [Phase.EVALUATION, Phase.CHECKPOINT, Phase.COMPILE, Phase.INIT])
def test_a_declared_slow_phase_has_its_own_budget(worker: Worker, phase: Phase) -> None:
    """Longer than a window may take, and no hang."""
    worker.declare(phase)

    assert worker.stands(50.0) == []


def test_an_endless_evaluation_is_a_hang(worker: Worker) -> None:
    """A declared phase has a bound too, and the event says which it was."""
    worker.declare(Phase.EVALUATION)
    assert worker.stands(61.0) == [s.DumpStacks((7,))]

    worker.bench.feed(STACKS)

    assert worker.bench.events[-1].fields["phase"] == "evaluation"


def test_time_that_the_daemon_did_not_see_is_no_silence(worker: Worker) -> None:
    """A daemon that was stopped for an hour, or a machine that slept, comes back without a verdict."""
    assert worker.stands(3600.0, step=3600.0) == []
    assert worker.bench.view.standing == Standing(Phase.WINDOW, MOST_BETWEEN_LOOKS_SECONDS, 2.0)


def test_a_wall_clock_has_no_say(make_bench: Callable[..., Bench]) -> None:
    """Set forward or back by a year, or standing: the same silence, the same verdict."""
    verdicts = []
    for jump in (0.0, 3.15e7, -3.15e7):
        running = Worker(make_bench(CONFIG).running())
        running.declare(Phase.INIT)
        running.trains(2, 0.1)
        asked = []
        for _ in range(25):
            running.bench.now += jump
            asked.append(len(running.stands(0.1)))
        verdicts.append(asked)

    assert verdicts[0].count(1) == 1
    assert verdicts[1:] == verdicts[:1] * 2


def test_a_budget_is_learned(worker: Worker) -> None:
    """Ten times the longest window lately, between the bounds."""
    worker.trains(4, 0.4)
    worker.declare(Phase.WINDOW)
    worker.stands(0.1)

    standing = worker.bench.view.standing
    assert standing is not None
    assert standing.budget_seconds == pytest.approx(10 * 0.4, abs=1.01)
    assert worker.stands(2.5) == []


def test_until_something_was_seen_the_bound_holds(make_bench: Callable[..., Bench]) -> None:
    """A first window is not judged by how quick others were elsewhere."""
    running = Worker(make_bench(CONFIG).running())
    running.declare(Phase.WINDOW)

    assert running.stands(4.5) == []
    assert len(running.stands(1.0)) == 1


@pytest.mark.parametrize("phase", list(Phase))
def test_a_budget_is_within_its_bounds(phase: Phase) -> None:
    """Whatever was seen: never under least_seconds, never over the phase's own."""
    draw = random.Random(5)
    section, budgets = WatchdogSection(least_seconds=3.0, factor=2.0), Budgets()
    for _ in range(200):
        budgets.learn(phase, draw.expovariate(0.01))
        budget = budgets.of(phase, section)
        assert budget is not None
        assert 3.0 <= budget <= bound_of(phase, section)


def test_a_bound_is_stronger_than_the_least() -> None:
    """Who writes window_seconds = 1 means it."""
    budgets = Budgets()
    budgets.learn(Phase.WINDOW, 0.1)

    assert budgets.of(Phase.WINDOW, WatchdogSection(window_seconds=1.0)) == 1.0


def test_saves_teach_the_budget_of_a_checkpoint(worker: Worker) -> None:
    """The loop copies in no time, and waits for the disk at the end: that must not come as a surprise."""
    worker.declare(Phase.CHECKPOINT)
    worker.stands(0.1)
    worker.bench.report(m.Saved(window=5, path="p", bytes=1, seconds=30.0, stall_seconds=0.1))
    worker.declare(Phase.CHECKPOINT)
    worker.stands(0.1)

    assert worker.bench.view.standing == Standing(Phase.CHECKPOINT, 0.0, 300.0)


def test_what_is_old_is_forgotten() -> None:
    """One slow hour does not hide every hang that comes after it; memory is bounded."""
    longest = Longest()
    longest.add(40.0)
    for _ in range(LATELY_MINUTES + 2):
        longest.add(61.0 / 2)
        longest.add(61.0 / 2)

    assert longest.seconds == 30.5


@pytest.mark.parametrize("prepare", ["boot", "paused", "running"])
def test_every_phase_of_life_is_watched(make_bench: Callable[..., Bench], prepare: str) -> None:
    """A worker that never speaks, and one that was paused, hang like any other; the first has no stacks to ask for."""
    bench = make_bench(job_config(watchdog__init_seconds=3.0))
    getattr(bench, prepare)()

    asked = Worker(bench).stands(3.5)

    assert asked == [s.DumpStacks(() if prepare == "boot" else (7,))]


def test_a_stopping_worker_is_left_to_its_save_budget(worker: Worker) -> None:
    """Two clocks over one checkpoint would be one too many."""
    worker.bench.signal("terminate")

    assert worker.stands(10.0) == []


def test_a_stop_during_the_verdict_ends_the_job(worker: Worker) -> None:
    """The worker that was to save is the one that hangs: killed, and said."""
    worker.stands(2.5)
    worker.bench.signal("terminate")
    worker.bench.feed(STACKS)
    worker.bench.die(-9)

    assert worker.bench.view.state is JobState.FAILED
    assert "ended with a hang in phase window" in worker.bench.exits[0].message


def test_nothing_is_judged_where_it_is_switched_off(make_bench: Callable[..., Bench]) -> None:
    """For a debugger: how long is still shown."""
    running = Worker(make_bench(job_config(watchdog__enabled=False)).running())
    running.declare(Phase.WINDOW)

    assert running.stands(100.0) == []
    standing = running.bench.view.standing
    assert standing is not None
    assert standing.seconds > 99
    assert standing.budget_seconds is None


def test_an_attached_program_is_not_judged() -> None:
    """It is not ours to end."""
    bench = Bench(CONFIG)
    bench.view.is_attached = True
    bench.running()

    assert Worker(bench).stands(5000.0, step=0.5) == []
    assert bench.view.standing is None


def test_no_worker_no_standing(worker: Worker) -> None:
    """While the next one is waited for, nothing stands still."""
    worker.bench.die()

    worker.stands(10.0)

    assert worker.bench.view.standing is None
    assert worker.bench.feed(STACKS) == []


def test_status_shows_the_phase(worker: Worker) -> None:
    """And for how long, and how long it may be."""
    worker.stands(1.0)

    worker.bench.ask(p.Status())

    standing = worker.bench.result["standing"]
    assert (standing["phase"], standing["budget_seconds"]) == ("window", 2.0)
    assert standing["seconds"] == pytest.approx(1.0)


def group_of(processes: int) -> JobConfig:
    """A job of several processes, with short budgets."""
    return job_config(
        watchdog__least_seconds=2.0, watchdog__window_seconds=5.0, watchdog__paused_seconds=5.0,
        distributed__processes=processes,
    )  # fmt: skip


def stand(bench: Bench, seconds: float, *pulses: Pulse) -> list[s.AnyInstruction]:
    """Look at the pulses of a group for so long; what was asked for."""
    out: list[s.AnyInstruction] = []
    for _ in range(round(10 * seconds)):
        first, *peers = pulses
        out += bench.feed(s.Pulsed(now=bench.now, pulse=first, peers=tuple(peers), elapsed_seconds=0.1))
    return out


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_the_rank_that_waits_for_nobody_is_named(make_bench: Callable[..., Bench], culprit: int) -> None:
    """The others stand as long, since they wait for it; the stacks of all are saved."""
    bench = make_bench(group_of(3)).running()
    for rank in (1, 2):
        bench.feed(s.Reported(now=bench.now, rank=rank, report=m.Hello(rank=rank, pid=100 + rank)))
    pulses = [Pulse(Phase.WINDOW, 5, is_waiting=rank != culprit) for rank in range(3)]

    (dump,) = [one for one in stand(bench, 20, *pulses) if isinstance(one, s.DumpStacks)]

    assert {101, 102} < set(dump.pids)
    bench.feed(s.Dumped(now=bench.now, path="stacks.log"))
    (told,) = [event for event in bench.events if event.name == "worker.hung"]
    assert told.fields["rank"] == culprit
    bench.die(-9)
    assert f"a hang of rank {culprit} in phase window" in bench.view.state_reason


def test_one_rank_that_stands_still_is_enough(make_bench: Callable[..., Bench]) -> None:
    """While paused the others go on looking for orders."""
    bench = make_bench(group_of(2)).running()
    out: list[s.AnyInstruction] = []

    for beat in range(100):
        out += stand(bench, 0.1, Pulse(Phase.PAUSED, beat), Pulse(Phase.PAUSED, 7))

    assert [type(one) for one in out if not isinstance(one, s.Publish)] == [s.DumpStacks]
    assert bench.view.standing is not None
    assert bench.view.standing.rank == 1
