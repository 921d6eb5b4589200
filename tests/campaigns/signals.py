"""Signals in every state of a job, in random order, several at once: the daemon ends as it says, and the next one goes on.

A case draws the state in which the first signal is to meet the job. It starts a daemon that comes into that state, and most
often stays there until it is told otherwise, waits for the event that says so, and then a random while. It sends up to four
of SIGTERM, SIGINT and SIGHUP with random pauses between none and a tenth of a second, makes sure of a SIGTERM, and starts the
job again. Random times alone would meet it while it starts and hardly ever elsewhere. Before a daemon has its job signals are
the interpreter's, so that is the least that is waited for.
"""

from __future__ import annotations

import contextlib
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ampd.core import protocol as p
from ampd.core.lifecycle import JobState
from ampd.errors import CommandError
from tests.daemon.daemons import Daemon, Job, until

NAME = "signals"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MOST_SECONDS = 1.5
"""The longest wait in a state before the first signal: a start takes about as long, everything else less."""
_ENOUGH = 50
"""So many daemons must have met every state."""
_STOPPED = frozenset({0, 130, -signal.SIGTERM})
"""Stopped; interrupted before it saved; ended before there was anything to stop."""
_FAILED = frozenset({1})
_HELD = "job.on_finish=hold"


@dataclass(frozen=True)
class Scene:
    """How a state is reached, and with which exit codes the daemon may end.

    Of `workers` (faults of the fake one) and `settings` one is drawn; `asks` is asked for once the job runs, without
    waiting for the answer.
    """

    state: JobState
    workers: tuple[str, ...] = ("", "--save-seconds 0.3", "--window-seconds 0.05")
    settings: tuple[tuple[str, ...], ...] = ((),)
    asks: tuple[p.AnyCommand | None, ...] = (None,)
    codes: frozenset[int] = _STOPPED


_CRASHES = ("--crash-at 3",)
SCENES = (
    Scene(JobState.STARTING, workers=("--hang-loading",)),
    Scene(JobState.RUNNING, asks=(None, None, p.Checkpoint())),
    Scene(JobState.PAUSED, asks=(p.Pause(),)),
    Scene(
        JobState.RECOVERING,
        workers=_CRASHES,
        settings=(("restart.backoff_seconds=60",), ("restart.backoff_seconds=0.5",)),
        codes=_STOPPED | _FAILED,  # a worker that crashes may do so while it stops, and then has not saved
    ),
    Scene(JobState.STOPPING, workers=("--save-seconds 3", "--hang-stopping"), asks=(p.Stop(),)),
    Scene(JobState.COMPLETED, settings=((_HELD, "job.windows=20"),), codes=frozenset({0})),
    Scene(JobState.FAILED, workers=_CRASHES, settings=((_HELD, "restart.max_restarts=0"),), codes=_FAILED),
)


def case(seed: int, daemons: int = 1) -> None:
    """Disturb so many, in each state as many, and start the next on what each left; many are summed up."""
    draw, begin = random.Random(seed), time.monotonic()
    first, met = Counter[str](), Counter[str]()
    for scene in _drawn(draw, daemons):
        states = _play(scene, draw)
        first[states[0]] += 1
        met.update(states)
    if daemons > 1:
        seconds = time.monotonic() - begin
        print(
            f"{NAME}: {daemons} daemons in {seconds:.0f} s;"
            f" signals by the state of the job: first {dict(first)}, all {dict(met)}"
        )
    unmet = {scene.state for scene in SCENES} - first.keys()
    assert daemons < _ENOUGH or not unmet, f"no first signal met: {', '.join(sorted(unmet))}"


def _drawn(draw: random.Random, count: int) -> Iterator[Scene]:
    """Each as often as any other, in random order."""
    while count > 0:
        yield from draw.sample(SCENES, min(count, len(SCENES)))
        count -= len(SCENES)


def _play(scene: Scene, draw: random.Random) -> list[str]:
    """A daemon from its start to its end, and the next; the states in which each signal met it."""
    with tempfile.TemporaryDirectory(prefix="ampd-") as home, ThreadPoolExecutor(1) as asking:
        job = Job(Path(home))
        job.write(restart="save_budget_seconds = 20")
        try:
            daemon = _start(job, scene, draw)
            until("the daemon has the job", (job.directory / "lock").exists)
            command = draw.choice(scene.asks)
            if command is not None:
                _reaches(daemon, JobState.RUNNING)
                asking.submit(_ask, daemon, command)
            _reaches(daemon, scene.state)
            sent, states = _disturb(daemon, draw)
            code, log = daemon.ends(), daemon.err.read_text()
            assert code in scene.codes, f"exit code {code} after {sent} from {scene.state} on: {log}"
            assert "Traceback" not in log, log
            _goes_on(job)
            return states
        finally:
            job.clean()


def _start(job: Job, scene: Scene, draw: random.Random) -> Daemon:
    words = [word for setting in draw.choice(scene.settings) for word in ("--set", setting)]
    return job.start(*words, worker=draw.choice(scene.workers))


def _ask(daemon: Daemon, command: p.AnyCommand) -> None:
    """Whatever the answer is: signals come between."""
    with contextlib.suppress(CommandError):
        daemon.ask(command)


def _reaches(daemon: Daemon, state: JobState) -> None:
    """Wait until it has been there; a job begins in `starting`, which nobody tells."""
    if state is JobState.STARTING:
        return

    def is_reached() -> bool:
        moves = [move["to"] for move in daemon.said("lifecycle.changed")]
        assert state in moves or daemon.process.poll() is None, daemon.err.read_text()
        return state in moves

    until(f"the state {state}", is_reached)


def _disturb(daemon: Daemon, draw: random.Random) -> tuple[list[str], list[str]]:
    """Send signals from a random moment on; which they were, and in which state each met the job."""
    time.sleep(draw.uniform(0.0, _MOST_SECONDS))  # the point of the campaign: the moment is random
    signals = [draw.choice(_SIGNALS) for _ in range(draw.randint(1, 4))]
    states = []
    for number in [*signals, signal.SIGTERM]:
        states.append(_state(daemon))
        daemon.signal(number)
        time.sleep(draw.choice([0.0, 0.01, 0.1]))
    return [number.name for number in signals], states


def _state(daemon: Daemon) -> str:
    moves = daemon.said("lifecycle.changed")
    return str(moves[-1]["to"]) if moves else JobState.STARTING.value


def _goes_on(job: Job) -> None:
    after = job.start()
    after.runs()
    after.signal(signal.SIGTERM)
    assert after.ends() == 0
