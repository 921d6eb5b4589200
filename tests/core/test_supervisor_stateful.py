"""Random histories: whatever happens in whatever order, the laws of the bench hold and everybody is answered."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ampd.core import messages as m
from ampd.core import stimuli as s
from ampd.core.phase import Phase, Pulse
from ampd.core.stimuli import TimerKind
from ampd.core.worker_life import Worker
from tests.core.bench import Bench, job_config, ready, snapshot
from tests.core.test_supervisor_states import COMMANDS, REPORTS

_CONFIG = job_config(inject__allowed=True, restart__max_restarts=2, watchdog__window_seconds=2.0)


class Daemon(RuleBasedStateMachine):
    """A supervisor, its worker, its disk and its clients, each doing what they may at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(_CONFIG, writes=False)
        self.bench.boot()
        self.window = self.windows = self.seq = 0
        self.applied: set[str] = set()
        self.asked: list[tuple[str, Any]] = []

    @property
    def worker(self) -> Worker:
        return self.bench.supervisor.run.worker

    # The worker, as it may behave.

    @precondition(lambda self: self.worker is Worker.LOADING)
    @rule()
    def speak(self) -> None:
        self.bench.hello()

    @precondition(lambda self: self.worker is Worker.BRIEFED)
    @rule(back=st.integers(0, 5))
    def get_ready(self, back: int) -> None:
        self.window, self.windows = max(0, self.window - back), 0
        self.bench.report(ready(self.bench.view.config, self.window, resumed=True))

    @precondition(lambda self: self.worker is Worker.READY)
    @rule(count=st.integers(1, 3))
    def train(self, count: int) -> None:
        self.window, self.windows = self.window + count, self.windows + count
        self.bench.report(snapshot(self.window, windows=self.windows))

    @precondition(lambda self: self.worker is Worker.READY)
    @rule()
    def take_an_action(self) -> None:
        fresh = [act for act in self.bench.acts if act.request_id not in self.applied]
        if fresh:
            self.seq += 1
            self.applied.add(fresh[0].request_id)
            self.bench.apply(fresh[0], seq=self.seq, window=self.window, revision=self.seq + 1)

    @precondition(lambda self: self.worker in (Worker.READY, Worker.GONE))
    @rule(result=st.sampled_from(["completed", "stopped", "failed"]))
    def finish(self, result: m.Result) -> None:
        self.bench.finish(result, self.window)

    @rule(returncode=st.sampled_from([0, 1, -9, -15]))
    def exit(self, returncode: int) -> None:
        self.bench.feed(s.Exited(now=self.bench.now, returncode=returncode))

    @rule(name=st.sampled_from(sorted(set(REPORTS) - {"applied", "snapshot", "ready"})))
    def say_anything(self, name: str) -> None:
        self.bench.report(REPORTS[name])

    # Clients, operators, the disk and time.

    @rule(name=st.sampled_from(sorted(COMMANDS)), client=st.sampled_from(["ann", "bob"]))
    def ask(self, name: str, client: str) -> None:
        request_id = f"command-{len(self.asked):03}"
        self.asked.append((request_id, COMMANDS[name]))
        self.bench.ask(COMMANDS[name], client=client, request_id=request_id)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), client=st.sampled_from(["ann", "bob", "cat"]))
    def ask_again(self, data: st.DataObject, client: str) -> None:
        request_id, command = data.draw(st.sampled_from(self.asked))
        if (
            client,
            request_id,
        ) not in self.bench.waiting:  # a client waits for its reply before it asks again
            self.bench.ask(command, client=client, request_id=request_id)

    @rule(name=st.sampled_from(["interrupt", "terminate", "hangup"]))
    def signal(self, name: str) -> None:
        self.bench.signal(name)

    @rule()
    def reload(self) -> None:
        self.bench.feed(s.Reloaded(now=self.bench.now, config=job_config(optim__lr=0.25)))

    @rule(error=st.sampled_from(["", "", "", "disk full"]))
    def write(self, error: str) -> None:
        self.bench.write(error)

    @rule(beats=st.integers(0, 3), looks=st.integers(1, 8), is_dumped=st.booleans())
    def look(self, beats: int, looks: int, is_dumped: bool) -> None:
        """The worker gets on or does not; a hang is judged, and its stacks may come late."""
        pulsed = s.Pulsed(now=self.bench.now, pulse=Pulse(Phase.WINDOW, beats), elapsed_seconds=0.5)
        asked = [out for _ in range(looks) for out in self.bench.feed(pulsed)]
        assert [type(out) for out in asked] in ([], [s.DumpStacks])
        if is_dumped:
            self.bench.feed(s.Dumped(now=self.bench.now, path="stacks.log"))

    @rule(kind=st.sampled_from(list(TimerKind)), seconds=st.floats(-5, 100))
    def fire(self, kind: TimerKind, seconds: float) -> None:
        self.bench.now += seconds
        self.bench.fire(kind)

    @invariant()
    def laws(self) -> None:
        self.bench.check([])
        self.bench.check_end()

    def teardown(self) -> None:
        """However it stands, it can be ended, and nobody is left waiting."""
        for _ in range(3):
            self.bench.signal("interrupt")
        self.bench.write()
        self.bench.die(-9)
        self.bench.write()
        assert len(self.bench.exits) == 1
        self.bench.check_end()


Daemon.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
TestDaemon = Daemon.TestCase
