"""`ampctl events`: what is kept, in as many pieces as it takes, and what happens from now on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ampd.cli import ctl_events
from ampd.cli.ampctl import cli
from ampd.control.endpoints import Presence
from ampd.control.follow import Lost, NewBoot, Silent, Told
from tests.control.telling import Teller


@pytest.fixture
def teller(runtime: Path) -> Iterator[Teller]:
    """A daemon that keeps a thousand and two hundred events."""
    with Teller(runtime / "bytegpt", kept=1200) as told:
        yield told


def ampctl(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_events_are_lines(teller: Teller) -> None:
    """One for each, oldest first."""
    teller.tell(3)

    lines = ampctl("events").stdout.splitlines()

    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all("a.happened" in line for line in lines)


def test_many_events_come_in_pieces(teller: Teller) -> None:
    """A reply is bounded; what is printed is whole."""
    teller.tell(1300)

    printed = json.loads(ampctl("events", "--json").stdout)["result"]

    assert [event["seq"] for event in printed["events"]] == list(range(101, 1301))
    assert printed["last"] == 1300
    assert teller.asked == 3


def test_events_after_a_number(teller: Teller) -> None:
    """`--since` leaves out what is known; nothing new is said in words."""
    teller.tell(3)

    assert [line.split()[0] for line in ampctl("events", "--since", "2").stdout.splitlines()] == ["3"]
    assert ampctl("events", "--since", "3").stdout == "no event yet\n"


def test_events_that_are_gone_are_refused(teller: Teller) -> None:
    """Exit 5, with which are gone and what to ask instead."""
    teller.tell(1300)

    result = ampctl("events", "--since", "50")

    assert result.exit_code == 5
    assert "events 51 to 100 are gone: 101 is the oldest" in result.stderr
    assert "hint: ask without a number" in result.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.usefixtures("_interruptible")
def test_following_ends_with_an_interrupt(teller: Teller, form: list[str]) -> None:
    """Each event is printed as it comes, a line each; Ctrl-C ends it with 130 and no traceback."""
    teller.tell(2)
    command = [sys.executable, "-m", "ampd.cli.ampctl", "events", "--follow", "--since", "0", *form]

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as following:  # fmt: skip
        assert following.stdout is not None
        assert following.stderr is not None
        lines = [following.stdout.readline() for _ in range(2)]
        teller.tell(1)
        lines.append(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        errors = following.stderr.read()

    assert (following.returncode, errors) == (130, b"")
    numbers = [json.loads(line)["seq"] if form else int(line.split()[0]) for line in lines]
    assert numbers == [1, 2, 3]


@pytest.mark.parametrize(
    ("told", "name", "words"),
    [
        (Lost(boot="b", first=2, last=7), "events.lost", "events 2 to 7 are lost"),
        (NewBoot(boot="b", before="a", last=9), "daemon.changed", "started again: boot b after boot a"),
        (Silent(presence=Presence.LISTENING), "daemon.silent", "the daemon is stopped or hung"),
        (Silent(presence=Presence.STALE), "daemon.silent", "the daemon has ended"),
    ],
)
def test_what_is_no_event_is_told_too(told: Told, name: str, words: str) -> None:
    """For programs in an event's shape without a number, for people in words."""
    row = ctl_events._row(told)

    assert (row["name"], row["seq"], row["time"]) == (name, None, None)
    assert words in ctl_events._said(told)
