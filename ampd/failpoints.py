"""Named places where a drill or a test has a process of ours killed, stopped for a while, or failed by its disk.

    AMPD_FAILPOINTS="checkpoint.rename=kill@3,journal.fsync=error:ENOSPC,start.spawned=sleep:5"

A crash between two steps of a save is the case that recovery is for, and the one that no timing can hit reliably: a
step that matters has a name here, and `reach(name)` stands right before it. Where the variable is not set, `reach` is
a look at an empty dict. `kill` is SIGKILL to the process that gets there, `error:NAME` an OSError as the disk would
give, `sleep:SECONDS` holds that thread; `@N` means the Nth time only, counted in each process, else every time.

It is a switch of the environment and no key of the job file: a job must not carry its own sabotage, and nobody who
may only talk to the socket can set it.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

from ampd.errors import ConfigError

VARIABLE = "AMPD_FAILPOINTS"


class Point(msgspec.Struct, frozen=True):
    """A step that can be made to fail; `takes_errors` where its code meets the disk."""

    doc: str
    takes_errors: bool = False


POINTS: Mapping[str, Point] = {
    "start.locked": Point("The daemon has the job's directory, and nothing else yet."),
    "start.bound": Point("Its control socket answers; nothing of the job was touched."),
    "start.spawned": Point("A worker runs, and nobody has written down which."),
    "lock.write": Point("Before the lock says who has the job's directory.", takes_errors=True),
    "journal.write": Point("Before lines are written to the journal.", takes_errors=True),
    "journal.fsync": Point("They are written, and not yet on the disk.", takes_errors=True),
    "journal.rename": Point("A shorter journal lies beside the old one.", takes_errors=True),
    "losses.write": Point("Before rows are added to losses.jsonl.", takes_errors=True),
    "losses.fsync": Point("They are written, and not yet on the disk.", takes_errors=True),
    "checkpoint.room": Point("Before it is looked whether the disk takes anything again.", takes_errors=True),
    "checkpoint.write": Point("Before anything of a checkpoint is on the disk.", takes_errors=True),
    "rows.written": Point(
        "Its part of a checkpoint is on the disk, which a rank has told nobody.", takes_errors=True
    ),
    "checkpoint.manifest": Point("Its tensors are, and its manifest is not.", takes_errors=True),
    "checkpoint.rename": Point("All of it is, under a name that nobody reads.", takes_errors=True),
    "checkpoint.renamed": Point("It has its name, which may not last a power cut.", takes_errors=True),
    "checkpoint.remove": Point("Before an old one is removed.", takes_errors=True),
    "link.order": Point("Before the daemon sends an order to the worker."),
    "link.report": Point("Before the worker sends a report to the daemon."),
}
"""Every failpoint by name, in the order of a run."""

_ACTION = re.compile(r"(?P<verb>kill|error|sleep)(:(?P<word>[^@]+))?(@(?P<time>[1-9]\d{0,8}))?", re.ASCII)


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What happens at a failpoint: the `time`-th time that it is reached, or (0) each time."""

    verb: Literal["kill", "error", "sleep"]
    errno: int = 0
    seconds: float = 0.0
    time: int = 0


_armed: dict[str, Action] = {}
_reached: dict[str, int] = {}


def arm(environment: Mapping[str, str]) -> None:
    """Switch on what the environment asks for, and nothing else. Raises ConfigError for what it does not understand."""
    actions = parse(environment.get(VARIABLE, ""))
    _reached.clear()
    _armed.clear()
    _armed.update(actions)


def reach(name: str) -> None:
    """This step is next. Raises OSError, or does not return, where that was asked for."""
    if _armed and name in _armed:
        _meet(name, _armed[name])


def parse(text: str) -> dict[str, Action]:
    """The actions by failpoint; raises ConfigError with the first word that is wrong and what would be right."""
    actions: dict[str, Action] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = word.partition("=")
        if name not in POINTS:
            raise _wrong(word, f"there is no failpoint {name!r}", f"failpoints: {', '.join(POINTS)}")
        if name in actions:
            raise _wrong(word, f"{name} is given twice", "give each once")
        actions[name] = _action(word, name, action)
    return actions


def _action(word: str, name: str, text: str) -> Action:
    found = _ACTION.fullmatch(text)
    if found is None:
        raise _wrong(
            word, f"{text!r} is no action", "kill, error:ENOSPC or sleep:SECONDS, with @N for the Nth time"
        )
    verb, argument, time_ = found["verb"], found["word"], int(found["time"] or 0)
    match verb, argument:
        case "kill", None:
            return Action(verb="kill", time=time_)
        case "sleep", str() if re.fullmatch(r"\d{1,5}(\.\d+)?", argument, re.ASCII):
            return Action(verb="sleep", seconds=float(argument), time=time_)
        case "error", str() if argument in errno.errorcode.values():
            if not POINTS[name].takes_errors:
                raise _wrong(word, f"{name} meets no disk", "kill or sleep:SECONDS")
            return Action(verb="error", errno=getattr(errno, argument), time=time_)
    raise _wrong(
        word,
        f"{text!r} is no action",
        "kill takes no word, error a name as ENOSPC, sleep a number of seconds",
    )


def _wrong(word: str, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{VARIABLE}: {word}: {what}", field=VARIABLE, hint=hint)


def _meet(name: str, action: Action) -> None:
    _reached[name] = _reached.get(name, 0) + 1
    if action.time not in (0, _reached[name]):
        return
    match action.verb:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            time.sleep(action.seconds)
        case "error":
            raise OSError(action.errno, f"{os.strerror(action.errno)} (failpoint {name})")
