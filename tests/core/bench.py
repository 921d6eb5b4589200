"""A bench for the supervisor's core: an ideal shell that does what it is told, and checks the laws after each step.

The laws: an action is sent only after its record is on disk, and answered only after its outcome is; a request is
answered at most once for each time that it was asked, and has been when the daemon exits; the state moves only as
the table says; counters never run backwards; events have no holes; what is in flight is bounded.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import msgspec

from ampd.core import change
from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.config import JobConfig
from ampd.core.flights import MOST_IN_FLIGHT
from ampd.core.ledger import Counts, Span
from ampd.core.lifecycle import TRANSITIONS, JobState
from ampd.core.precision import Capability, Choice, Precision
from ampd.core.stimuli import TimerKind
from ampd.core.supervisor import Supervisor
from ampd.core.view import JobView
from ampd.core.worker_life import Worker

Kind = TypeVar("Kind", bound=s.Instruction)

CHOICE = Choice(precision=Precision.BFLOAT16, reason="native on cpu")


def job_config(**keys: Any) -> JobConfig:
    """A small valid job file, with some keys given as section__name."""
    document: dict[str, Any] = {
        "job": {"name": "toy", "directory": "runs/toy", "windows": 100},
        "workload": {"name": "digits"},
    }
    for key, value in keys.items():
        section, _, name = key.partition("__")
        document.setdefault(section, {})[name] = value
    return change.build(document)


def job_view(config: JobConfig | None = None) -> JobView:
    """A daemon that has just begun."""
    config = config or job_config()
    return JobView(
        name=config.job.name, directory=config.job.directory, boot="boot-1", pid=42, endpoint="ipc:///run/toy",
        http="127.0.0.1:9647", started=1000.0, config=config,
    )  # fmt: skip


def ready(config: JobConfig, window: int = 0, *, revision: int = 1, resumed: bool = False) -> m.Ready:
    """What a worker says when it is ready."""
    return m.Ready(
        window=window, total_windows=100, windows_per_epoch=50, resumed=resumed, revision=revision, config=config,
        capability=Capability(device="cpu", native=(Precision.BFLOAT16,)), choice=CHOICE, parameters=10,
        torch_version="2",
    )  # fmt: skip


def snapshot(window: int, *, windows: int | None = None, revision: int = 1) -> m.Snapshot:
    """A worker at `window` that has run `windows` since it started."""
    done = window if windows is None else windows
    counts = Counts(windows=done, applied=done, samples=32 * done)
    return m.Snapshot(
        rank=0, window=window, total_windows=100, epoch=0, revision=revision, precision=Precision.BFLOAT16,
        counts=counts, job=counts, span=counts, span_scale=Span(), span_loss=Span(), loss=2.0, grad_norm=1.0,
        lr=1e-3, scale=None, seconds={"train": float(done)}, memory={},
    )  # fmt: skip


class Bench:
    """A supervisor, and everything that it asked for."""

    def __init__(
        self,
        config: JobConfig | None = None,
        *,
        schedule: tuple[m.AppliedAction, ...] = (),
        pending: tuple[m.Act, ...] = (),
        writes: bool = True,
    ) -> None:
        self.view = job_view(config)
        self.supervisor = Supervisor(self.view)
        self._history = (schedule, pending)
        self.writes = writes
        """Whether the disk is done at once with what is recorded; else `write` says when."""
        self.now = 1000.0
        self.instructions: list[s.AnyInstruction] = []
        self.unwritten: list[s.Entry] = []
        self._on_disk: set[str] = {act.request_id for act in pending}
        self._outcomes: set[str] = set()
        self._asked: Counter[tuple[object, str]] = Counter()
        self._answered: Counter[tuple[object, str]] = Counter()
        self._counts = Counts()
        self._state = self.view.state
        self._ids = 0
        self.trial: m.AppliedAction | None = None

    # What happens.

    def feed(self, stimulus: s.AnyStimulus) -> list[s.AnyInstruction]:
        """One stimulus; returns what was asked for in answer to it, disk included."""
        mark = len(self.instructions)
        out = self.supervisor.handle(stimulus)
        self.check(out)
        self.instructions += out
        for instruction in out:
            if isinstance(instruction, s.Record):
                self.unwritten.append(instruction.entry)
        if self.writes:
            self.write()
        return self.instructions[mark:]

    def write(self, error: str = "") -> None:
        """The disk is done with everything that waits for it."""
        while self.unwritten:
            entry = self.unwritten.pop(0)
            if not error:
                self._note(entry)
            self.feed(s.Recorded(now=self.now, entry=entry, error=error))

    def boot(self) -> Bench:
        schedule, pending = self._history
        self.feed(s.Booted(now=self.now, schedule=schedule, pending=pending))
        return self

    def report(self, report: m.Report) -> list[s.AnyInstruction]:
        return self.feed(s.Reported(now=self.now, rank=0, report=report))

    def hello(self) -> list[s.AnyInstruction]:
        return self.report(m.Hello(rank=0, pid=7))

    def get_ready(self, window: int = 0, *, revision: int = 1) -> list[s.AnyInstruction]:
        said = ready(self.view.config, window, revision=revision, resumed=window > 0)
        return self.report(said)

    def running(self, window: int = 0) -> Bench:
        """A job whose first worker is ready."""
        self.boot()
        self.hello()
        self.get_ready(window)
        return self

    def paused(self) -> Bench:
        self.running().report(m.Holding(window=0, reason="asked"))
        return self

    def die(self, returncode: int = 1, *lines: str) -> list[s.AnyInstruction]:
        """The worker is gone, and has said its last words."""
        out = self.feed(s.Exited(now=self.now, returncode=returncode, last_lines=lines))
        return out + self.fire(TimerKind.LAST_WORDS)

    def leave(self) -> list[s.AnyInstruction]:
        """The worker's process ends."""
        return self.feed(s.Exited(now=self.now, returncode=0))

    def finish(
        self, result: m.Result = "completed", window: int = 100, **more: Any
    ) -> list[s.AnyInstruction]:
        return self.report(m.Finished(result=result, window=window, **more))

    def restart(self) -> Bench:
        """The back-off is over and another worker has its orders."""
        self.fire(TimerKind.BACKOFF)
        self.hello()
        return self

    def fire(self, kind: TimerKind) -> list[s.AnyInstruction]:
        """The last timer of this kind runs out."""
        timers = [i.timer for i in self.of(s.SetTimer) if i.timer.kind is kind]
        return self.feed(s.Fired(now=self.now, timer=timers[-1])) if timers else []

    def signal(self, name: Any) -> list[s.AnyInstruction]:
        return self.feed(s.Signalled(now=self.now, signal=name))

    def ask(
        self,
        command: p.AnyCommand,
        *,
        client: str = "ann",
        request_id: str = "",
        stored: p.Reply | None = None,
    ) -> list[s.AnyInstruction]:
        self._ids += 1
        request = p.Request(v=1, id=request_id or f"request-{self._ids:03}", command=command)
        self._asked[client, request.id] += 1
        return self.feed(
            s.Requested(now=self.now, client=client, author=client, request=request, stored=stored)
        )

    def set(
        self, *, if_revision: int | None = None, dry_run: bool = False, **more: Any
    ) -> list[s.AnyInstruction]:
        """`ampctl set amp.dtype=float16`, or what `changes` says."""
        changes = more.pop("changes", {"amp.dtype": "float16"})
        return self.ask(p.Set(changes=changes, if_revision=if_revision, dry_run=dry_run), **more)

    def apply(
        self, act: m.Act, *, seq: int = 1, window: int = 10, revision: int = 2
    ) -> list[s.AnyInstruction]:
        """The worker does what an order says."""
        action = self._resolved(act.action)
        done = m.AppliedAction(
            seq=seq,
            window=window,
            revision=revision,
            action=action,
            request_id=act.request_id,
            author=act.author,
            reason=act.reason,
        )
        moved: tuple[change.Difference, ...] = ()
        if isinstance(action, m.Configure):
            moved = change.differences(self.view.config, change.change(self.view.config, action.changes))
            self.trial = done if action.trial is not None else self.trial
        return self.report(m.Applied(applied=done, differences=moved))

    def _resolved(self, action: m.Asked) -> m.Action:
        """An order as it takes effect: what ends a trial says which."""
        of = self.trial.revision if self.trial is not None else 0
        match action:
            case m.Cancel():
                return m.Configure(changes={}, reverts=of)
            case m.Confirm(revision=None):
                return m.Confirm(revision=of)
        return action

    # What was asked for.

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Every instruction of a kind so far."""
        return [i for i in self.instructions if isinstance(i, kind)]

    @property
    def orders(self) -> list[m.Order]:
        return [i.order for i in self.of(s.SendOrder)]

    @property
    def acts(self) -> list[m.Act]:
        """Every action that a worker was sent, on the way or with its start."""
        started = [act for order in self.orders if isinstance(order, m.Start) for act in order.pending]
        return started + [order for order in self.orders if isinstance(order, m.Act)]

    @property
    def replies(self) -> list[p.Reply]:
        return [i.reply for i in self.of(s.Answer)]

    @property
    def reply(self) -> p.Reply:
        return self.replies[-1]

    @property
    def result(self) -> dict[str, Any]:
        assert isinstance(self.reply, p.Done), self.reply
        return self.reply.result

    @property
    def refusal(self) -> p.Refusal:
        assert isinstance(self.reply, p.Refusal), self.reply
        return self.reply

    @property
    def events(self) -> list[p.Event]:
        return [i.event for i in self.of(s.Publish)]

    @property
    def exits(self) -> list[s.Exit]:
        return self.of(s.Exit)

    @property
    def waiting(self) -> Counter[tuple[object, str]]:
        """Requests that were asked and not answered, by client and id."""
        return self._asked - self._answered

    # The laws.

    def check(self, out: list[s.AnyInstruction]) -> None:
        """Every law, after one step that asked for `out`."""
        for instruction in out:
            match instruction:
                case s.SendOrder(m.Act() as act) if self.view.leader is None:  # who follows has no journal
                    assert act.request_id in self._on_disk, f"{act} was sent before its record was on disk"
                case s.SendOrder(m.Start() as start):
                    assert all(act.request_id in self._on_disk for act in start.pending), start.pending
                case s.Answer(client, reply):
                    self._check_answer(client, reply)
        self._check_view(out)

    def check_end(self) -> None:
        """What must hold when nothing more happens: whoever exits owes no answer."""
        if self.exits:
            assert len(self.exits) == 1
            assert not self.waiting, f"left without answering {self.waiting}"
            assert self.view.state.is_final
            assert self.supervisor.run.worker is Worker.ABSENT

    def _check_answer(self, client: object, reply: p.Reply) -> None:
        self._answered[client, reply.id] += 1
        assert self._answered[client, reply.id] <= self._asked[client, reply.id], (
            f"answered too often: {reply}"
        )
        assert msgspec.json.decode(msgspec.json.encode(reply))["id"] == reply.id
        if reply.id in self._on_disk and isinstance(reply, p.Done):
            assert reply.id in self._outcomes, f"{reply} went out before its outcome was on disk"

    def _check_view(self, out: list[s.AnyInstruction]) -> None:
        view = self.view
        assert self.supervisor.desk.in_flight <= MOST_IN_FLIGHT + 1
        seqs = [e.seq for e in self.events] + [i.event.seq for i in out if isinstance(i, s.Publish)]
        assert seqs == list(range(1, view.events + 1)), "events have a hole"
        self._check_moves([i.event for i in out if isinstance(i, s.Publish)])
        counts = view.counts
        for name in ("windows", "applied", "samples"):
            assert getattr(counts, name) >= getattr(self._counts, name), f"{name} ran backwards"
        self._counts = counts.copy()

    def _check_moves(self, events: list[p.Event]) -> None:
        for event in events:
            if event.name == "lifecycle.changed":
                assert event.fields["from"] == self._state
                assert event.fields["to"] in TRANSITIONS[self._state]
                self._state = JobState(event.fields["to"])
        assert self._state is self.view.state, "a move was not told"

    def _note(self, entry: s.Entry) -> None:
        match entry:
            case s.Accepted(act):
                self._on_disk.add(act.request_id)
            case s.Taken(applied):
                self._outcomes.add(applied.request_id)
            case s.Rejected(reply):
                self._outcomes.add(reply.id)
