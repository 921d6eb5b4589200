"""Why commands are refused: the closed list of reasons, each with its code and what to do instead."""

from __future__ import annotations

import msgspec

from ampd.core.group import Leader
from ampd.core.lifecycle import JobState
from ampd.core.messages import AppliedAction, Refused
from ampd.core.protocol import Code
from ampd.errors import ConfigError

_END_IT = "end it first: `ampctl confirm` keeps the change, `ampctl cancel` reverts it"


class Objection(msgspec.Struct, frozen=True, kw_only=True):
    """Why a command is refused: the part of a Refusal that is about the command."""

    code: Code
    message: str
    field: str = ""
    hint: str = ""


def of_error(code: Code, error: ConfigError) -> Objection:
    """What validation found."""
    return Objection(code=code, message=str(error), field=error.field, hint=error.hint)


def of_worker(report: Refused) -> Objection:
    """What the loop found."""
    code = Code(report.code) if report.code in Code.__members__ else Code.APPLY_FAILED
    return Objection(code=code, message=report.message, field=report.field, hint=report.hint)


def immutable(path: str) -> Objection:
    """The key needs a restart."""
    return Objection(
        code=Code.IMMUTABLE,
        message=f"{path} is fixed while the job runs",
        field=path,
        hint="change it in the job file, then stop and start the job",
    )


def given_twice(path: str, first: str, second: str) -> Objection:
    """Two words mean the same key, so one of them would be ignored."""
    return Objection(
        code=Code.BAD_VALUE,
        message=f"{path} is given twice, as {first!r} and {second!r}",
        field=path,
        hint="give it once",
    )


def stale_revision(asked: int, current: int) -> Objection:
    """A compare-and-set came too late."""
    return Objection(
        code=Code.CONFLICT,
        message=f"the change was asked for on revision {asked}, but revision {current} holds",
        hint="look at what holds now with `ampctl get`, then ask again on that revision",
    )


def moved_on(base: int | None, current: int) -> Objection:
    """A change was worked out from what held before another one."""
    return Objection(
        code=Code.CONFLICT,
        message=f"the change was made for revision {base}, but revision {current} holds",
        hint="look at the change in between and ask again",
    )


def second_trial(revision: int, until: int) -> Objection:
    """What made the difference could not be told."""
    return Objection(
        code=Code.CONFLICT,
        message=f"revision {revision} is on trial until window {until}, and one trial runs at a time",
        hint=_END_IT,
    )


def on_trial(keys: list[str], revision: int, until: int) -> Objection:
    """A key that is watched does not move under the trial."""
    are = "is" if len(keys) == 1 else "are"
    return Objection(
        code=Code.CONFLICT,
        message=f"{', '.join(keys)} {are} on trial since revision {revision}, until window {until}",
        field=keys[0],
        hint=_END_IT,
    )


def too_long(windows: int, left: int) -> Objection:
    """The job would be over before the trial is."""
    return Objection(
        code=Code.BAD_VALUE,
        message=f"a trial of {windows} windows does not end in this job, which has {left} left",
        field="trial",
        hint="give it fewer windows",
    )


def no_trial() -> Objection:
    """There is nothing to keep or to revert."""
    return Objection(
        code=Code.CONFLICT,
        message="no change is on trial",
        hint="`ampctl history` shows how the last one ended; `ampctl rollback` undoes a change that was kept",
    )


def untried(option: str) -> Objection:
    """An option of trials, without one."""
    return Objection(
        code=Code.BAD_VALUE,
        message=f"{option} is for a trial, and none is asked for",
        field=option,
        hint="say for how many windows the change is watched: `ampctl set KEY=VALUE --trial 200`",
    )


def trial_interrupted(revision: int, ending: Objection) -> Objection:
    """The job ends before the trial does."""
    return Objection(
        code=ending.code,
        message=f"{ending.message}; revision {revision} is still on trial",
        hint="the trial goes on when the job is started again; ask again then with the same --request-id",
    )


def nothing_before() -> Objection:
    """There is no revision to go back to."""
    return Objection(
        code=Code.BAD_VALUE,
        message="nothing was changed yet, so there is nothing to go back to: revision 1 is the job file",
        field="revision",
        hint="`ampctl history` lists the revisions",
    )


def compacted(since: int, first: int) -> Objection:
    """Some of the events that were asked for are forgotten."""
    return Objection(
        code=Code.COMPACTED,
        message=f"events {since + 1} to {first - 1} are gone: {first} is the oldest that is kept",
        field="since",
        hint="ask without a number for all that are kept",
    )


def other_boot(asked: str, boot: str) -> Objection:
    """The events that were asked for are those of an earlier daemon."""
    return Objection(
        code=Code.COMPACTED,
        message=f"the events of boot {asked} are gone: this daemon is boot {boot}",
        field="boot",
        hint="ask without a boot for the events of this one",
    )


def not_yet(since: int, last: int) -> Objection:
    """Events are asked for that have not happened."""
    return Objection(
        code=Code.BAD_VALUE,
        message=f"there is no event {since} yet: {last} is the newest",
        field="since",
        hint="numbers begin at 1 with every start of the daemon",
    )


def other_request(request_id: str) -> Objection:
    """An id was used for another command before."""
    return Objection(
        code=Code.CONFLICT,
        message=f"id {request_id!r} was given to another command before",
        hint="give each command an id of its own; repeat an id only to repeat its command",
    )


def injection_forbidden() -> Objection:
    """The job file does not allow faults."""
    return Objection(
        code=Code.FORBIDDEN,
        message="this job does not allow faults to be injected",
        field="inject.allowed",
        hint="set [inject] allowed = true in the job file, then stop and start the job",
    )


def not_ours(op: str) -> Objection:
    """The worker is a program with a loop of its own."""
    return Objection(
        code=Code.FORBIDDEN,
        message=f"{op} is not for a program that trains in its own loop: this daemon is only attached to it",
        hint="do it in that program; settings, statistics and resets work from here",
    )


def follows(leader: Leader) -> Objection:
    """The job is changed in one place, which is not here."""
    there = f"ampctl --endpoint {leader.endpoint}" if leader.endpoint else f"run ampctl on {leader.host}"
    return Objection(
        code=Code.NOT_LEADER,
        message=f"this node follows {leader.host}, where rank 0 is: changes and the job's history are there",
        hint=f"ask there: {there}",
    )


def busy(most: int) -> Objection:
    """No room for one more command."""
    return Objection(
        code=Code.BUSY,
        message=f"{most} commands are waiting already, which is the most",
        hint="ask again when some are answered",
    )


def no_worker(state: JobState) -> Objection:
    """Nobody can save now."""
    return Objection(
        code=Code.NOT_READY,
        message=f"the job is {state}: no worker has a state to save",
        hint="ask again when `ampctl status` shows running",
    )


def worker_lost() -> Objection:
    """The state that was to be saved is gone."""
    return Objection(
        code=Code.NOT_READY,
        message="the worker ended before it saved",
        hint="it is started again from its last checkpoint; ask again when `ampctl status` shows running",
    )


def no_window_yet() -> Objection:
    """There is nothing to count."""
    return Objection(
        code=Code.NOT_READY,
        message="no window has been run yet, so there are no statistics",
        hint="ask again when the job runs; `ampctl status` shows its state",
    )


def not_saved(window: int, why: str) -> Objection:
    """The disk did not take it."""
    return Objection(
        code=Code.APPLY_FAILED,
        message=f"the checkpoint at window {window} could not be written: {why}",
        hint="the previous checkpoint stands",
    )


def unrecorded(why: str) -> Objection:
    """The journal could not take an action, so it was not sent."""
    return Objection(
        code=Code.APPLY_FAILED,
        message=f"the command could not be recorded, so it was not carried out: {why}",
        hint="make room in the job directory, then ask again",
    )


def half_recorded(applied: AppliedAction, why: str) -> Objection:
    """It took effect, and a crash would forget it."""
    return Objection(
        code=Code.APPLY_FAILED,
        message=f"it took effect at window {applied.window}, but could not be recorded: {why}",
        hint="it holds until the worker restarts; make room in the job directory, then ask again",
    )


def over(state: JobState) -> Objection:
    """The job takes no more commands."""
    ending = state is JobState.STOPPING
    return Objection(
        code=Code.SHUTTING_DOWN,
        message="the job is stopping and takes no more commands" if ending else f"the job is over: {state}",
        hint="start it again with `ampd start`"
        if not ending
        else "wait until it has stopped, then start it again",
    )
