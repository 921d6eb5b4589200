"""Failpoints: named, refused where misspelt, inert unless switched on, and each standing somewhere."""

from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ampd.errors import ConfigError
from ampd.failpoints import POINTS, VARIABLE, Action, arm, parse, reach
from tests.tree import parsed, sources

POINT = "journal.fsync"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Nothing is armed after a test."""
    yield
    arm({})


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("kill", Action(verb="kill")),
        ("kill@3", Action(verb="kill", time=3)),
        ("error:ENOSPC", Action(verb="error", errno=errno.ENOSPC)),
        ("error:EIO@12", Action(verb="error", errno=errno.EIO, time=12)),
        ("sleep:2.5", Action(verb="sleep", seconds=2.5)),
    ],
)
def test_an_action_in_words(text: str, action: Action) -> None:
    """What happens, and which time."""
    assert parse(f" {POINT}={text} ,") == {POINT: action}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("journal.fsink=kill", "there is no failpoint 'journal.fsink'"),
        (f"{POINT}", "'' is no action"), (f"{POINT}=explode", "'explode' is no action"),
        (f"{POINT}=kill@0", "'kill@0' is no action"), (f"{POINT}=kill:9", "'kill:9' is no action"),
        (f"{POINT}=error:ENOPE", "'error:ENOPE' is no action"), (f"{POINT}=sleep:long", "'sleep:long' is no action"),
        (f"{POINT}=kill,{POINT}=kill", "is given twice"), ("link.order=error:EIO", "link.order meets no disk"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text: str, complaint: str) -> None:
    """By word, with what would be right; nothing is armed."""
    with pytest.raises(ConfigError, match=VARIABLE) as refused:
        arm({VARIABLE: text})

    assert complaint in str(refused.value)
    assert refused.value.hint
    reach(POINT)


def test_an_unknown_name_gets_the_list() -> None:
    """Nobody has to look for it."""
    with pytest.raises(ConfigError) as refused:
        parse("nonsense=kill")

    assert all(name in refused.value.hint for name in POINTS)


def test_without_the_variable_nothing_happens() -> None:
    """Every step can be reached as often as it likes."""
    arm({})

    for name in POINTS:
        reach(name)


def test_an_error_comes_the_time_it_was_asked_for() -> None:
    """Not before, and not again."""
    arm({VARIABLE: f"{POINT}=error:ENOSPC@2"})

    reach(POINT)
    with pytest.raises(OSError, match=r"failpoint journal\.fsync") as failed:
        reach(POINT)
    reach(POINT)

    assert failed.value.errno == errno.ENOSPC


def test_without_a_number_it_comes_each_time() -> None:
    """A disk that stays full."""
    arm({VARIABLE: f"{POINT}=error:EIO"})

    for _ in range(3):
        with pytest.raises(OSError, match="failpoint"):
            reach(POINT)


def test_a_kill_is_not_survived() -> None:
    """No handler, no flush: what a power cut leaves of a process."""
    code = "from ampd.failpoints import arm, reach; import os; arm(os.environ); reach('link.order'); print('alive')"

    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {VARIABLE: "link.order=kill"}, capture_output=True, check=False
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_a_sleep_holds_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as it says."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    arm({VARIABLE: "start.spawned=sleep:1.5"})

    reach("start.spawned")

    assert slept == [1.5]


def _reached() -> list[str]:
    """Every name that the source gives to `reach`."""
    calls = (
        node for path in sources("ampd") for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)
    )
    return [ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "failpoints.reach"]


def test_each_failpoint_stands_at_one_step() -> None:
    """None is only listed, none is unlisted, and each name is one place."""
    assert sorted(_reached()) == sorted(POINTS)


@pytest.mark.parametrize("name", POINTS)
def test_each_says_where_it_is(name: str) -> None:
    """`area.step`, and a sentence."""
    assert name.count(".") == 1
    assert POINTS[name].doc[0].isupper()
    assert POINTS[name].doc.endswith(".")
