"""Every stimulus in every state: nothing raises, every law of the bench holds, and the next state is the right one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.group import Leader
from ampd.core.ledger import Cause
from ampd.core.lifecycle import JobState
from ampd.core.phase import Pulse
from ampd.core.precision import Precision
from ampd.core.stimuli import TimerKind
from tests.core.bench import Bench, job_config, ready, snapshot

_CONFIG = job_config(inject__allowed=True, job__on_finish="hold")


def _recovering(bench: Bench) -> None:
    bench.running().die()


def _finished(result: m.Result) -> Callable[[Bench], object]:
    return lambda bench: bench.running().finish(result)


PREPARE: dict[JobState, Callable[[Bench], object]] = {
    JobState.STARTING: lambda bench: bench.boot().hello(),
    JobState.RUNNING: lambda bench: bench.running(),
    JobState.PAUSED: lambda bench: bench.paused(),
    JobState.RECOVERING: _recovering,
    JobState.STOPPING: lambda bench: bench.running().signal("terminate"),
    JobState.STOPPED: _finished("stopped"),
    JobState.COMPLETED: _finished("completed"),
    JobState.FAILED: _finished("failed"),
}

_ACTION = m.Configure(changes={"amp.dtype": "float16"})
REPORTS: dict[str, m.Report] = {
    "hello": m.Hello(rank=0, pid=1),
    "joined": m.Joined(first_rank=0, world=2, leader=Leader(host="gpu1")),
    "ready": ready(_CONFIG),
    "applied": m.Applied(applied=m.AppliedAction(seq=1, window=1, revision=2, action=_ACTION)),
    "refused": m.Refused(request_id="nobody-1", code="CONFLICT", message="stale"),
    "saved": m.Saved(window=1, path="p", bytes=1, seconds=1, stall_seconds=1),
    "save-failed": m.SaveFailed(window=1, message="full"),
    "set-aside": m.SetAside(path="p", reason="damaged"),
    "holding": m.Holding(window=1, reason="asked"),
    "going": m.Going(window=1),
    "fell-back": m.FellBack(window=1, cause=Cause.SCALE, tried=Precision.FLOAT16, applied_at=Precision.FLOAT32),
    "skipped": m.Skipped(window=1, cause=Cause.DATA),
    "scale-moved": m.ScaleMoved(window=1, old=2, new=1),
    "limit-reached": m.LimitReached(window=1, epoch=0, fallbacks=11, action="warn"),
    "quarantined": m.Quarantined(window=1, cause=Cause.DATA, path="q"),
    "rolled-back": m.RolledBack(window=1, cause=Cause.MODEL),
    "scale-stuck": m.ScaleStuck(window=1, scale=1.0),
    "widened": m.Widened(window=1, module="head", location="model.py:3"),
    "split": m.Split(window=1, parts=2, message="out of memory"),
    "diverged": m.Diverged(window=1, ranks=(1,), parameter="head.weight"),
    "evaluated": m.Evaluated(window=1, figures={"loss": 1.0}, seconds=1),
    "warned": m.Warned(topic="t", message="m"),
    "lost": m.Lost(events=3),
    "completed": m.Finished(result="completed", window=1),
    "stopped": m.Finished(result="stopped", window=1),
    "failed": m.Finished(result="failed", window=1),
    "snapshot": snapshot(3),
}  # fmt: skip

_OVER = {JobState.STOPPED, JobState.COMPLETED, JobState.FAILED}
_HAS_WORKER = {JobState.STARTING, JobState.RUNNING, JobState.PAUSED, JobState.STOPPING}
MOVES: dict[tuple[JobState, str], JobState] = {
    (JobState.STARTING, "ready"): JobState.RUNNING,
    (JobState.RUNNING, "holding"): JobState.PAUSED,
    (JobState.PAUSED, "going"): JobState.RUNNING,
    **{
        (state, result): JobState(result)
        for state in _HAS_WORKER
        for result in ("completed", "stopped", "failed")
    },
    **{(state, "exited"): JobState.RECOVERING for state in _HAS_WORKER - {JobState.STOPPING}},
    (JobState.STOPPING, "exited"): JobState.FAILED,
    (JobState.RECOVERING, "backoff"): JobState.STARTING,
    **{(state, "interrupt"): JobState.STOPPING for state in _HAS_WORKER},
    **{(state, "terminate"): JobState.STOPPING for state in _HAS_WORKER},
    **{(state, "stop"): JobState.STOPPING for state in _HAS_WORKER},
    (JobState.RECOVERING, "interrupt"): JobState.STOPPED,
    (JobState.RECOVERING, "terminate"): JobState.STOPPED,
    (JobState.RECOVERING, "stop"): JobState.STOPPED,
}
"""What moves a job; every other stimulus leaves it where it is."""

COMMANDS: dict[str, p.AnyCommand] = {
    "status": p.Status(), "get": p.Get(), "stats": p.Stats(), "set": p.Set(changes={"optim.lr": "0.5"}),
    "preset": p.Preset(name="ultra"), "reset": p.Reset(), "checkpoint": p.Checkpoint(), "pause": p.Pause(),
    "resume": p.Resume(), "inject": p.Inject(fault="overflow"), "stop": p.Stop(), "history": p.History(),
    "diff": p.Diff(), "rollback": p.Rollback(), "overlay": p.Overlay(), "overlay-drop": p.DropOverlay(),
    "confirm": p.Confirm(), "cancel": p.Cancel(), "events": p.Events(), "hello": p.Hello(),
}  # fmt: skip


def _happen(bench: Bench, name: str) -> None:
    """One stimulus by its name."""
    if name in REPORTS:
        bench.report(REPORTS[name])
    elif name in COMMANDS:
        bench.ask(COMMANDS[name])
    elif name in ("interrupt", "terminate", "hangup"):
        bench.signal(name)
    else:
        _OTHERS[name](bench)


_OTHERS: dict[str, Callable[[Bench], Any]] = {
    "exited": lambda bench: bench.die(),
    "spawned": lambda bench: bench.feed(s.Spawned(now=bench.now, pid=5)),
    "reloaded": lambda bench: bench.feed(s.Reloaded(now=bench.now, config=_CONFIG)),
    "reload-failed": lambda bench: bench.feed(s.Reloaded(now=bench.now, error="bad")),
    "pulsed": lambda bench: bench.feed(s.Pulsed(now=bench.now, pulse=Pulse(), elapsed_seconds=0.1)),
    "dumped": lambda bench: bench.feed(s.Dumped(now=bench.now, path="stacks.log")),
    "backoff": lambda bench: bench.fire(TimerKind.BACKOFF),
    "save-budget": lambda bench: bench.fire(TimerKind.SAVE_BUDGET),
    "leaving": lambda bench: bench.fire(TimerKind.LEAVING),
}
STIMULI = [*REPORTS, *COMMANDS, "interrupt", "terminate", "hangup", *_OTHERS]


@pytest.mark.parametrize("name", STIMULI)
@pytest.mark.parametrize("state", list(JobState))
def test_every_stimulus_in_every_state(make_bench: Callable[..., Bench], state: JobState, name: str) -> None:
    """The table above says where each leads; whatever it does not name changes no state."""
    bench = make_bench(_CONFIG)
    PREPARE[state](bench)
    assert bench.view.state is state

    _happen(bench, name)

    assert bench.view.state is MOVES.get((state, name), state)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("state", list(JobState))
def test_no_command_stays_unanswered(make_bench: Callable[..., Bench], state: JobState, name: str) -> None:
    """Asked in any state, whatever the job does until its end: one reply to each."""
    bench = make_bench(_CONFIG)
    PREPARE[state](bench)

    _happen(bench, name)
    for signal in ("terminate", "interrupt", "interrupt", "interrupt"):
        bench.signal(signal)
    bench.die(-9)

    assert not bench.waiting
    assert len(bench.exits) == 1


def test_the_table_has_every_report_and_command() -> None:
    """A new kind of report or command must not slip by untested."""
    assert {type(report) for report in REPORTS.values()} == set(m.Report.__args__)
    assert {type(command) for command in COMMANDS.values()} == set(p.AnyCommand.__args__)
