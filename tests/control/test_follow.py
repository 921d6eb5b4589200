"""Followers of a real daemon that loses events: every hole is mended, or told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import zmq

from ampd.control import codec, follow
from ampd.control.endpoints import Presence
from ampd.control.follow import Follower, Lost, NewBoot, Silent
from ampd.core.protocol import Event, Heartbeat
from ampd.errors import CommandError, ExitCode
from tests.control.served import Dealer
from tests.control.telling import Following, Teller


def numbers(told: list[follow.Told]) -> list[int]:
    return [each.seq for each in told if isinstance(each, Event)]


def test_a_new_subscriber_is_told_the_last_number_at_once(directory: Path) -> None:
    """The welcome carries the boot and the last event's number, and has none itself."""
    with Teller(directory) as teller:
        teller.tell(3)
        with Dealer(teller.endpoint.replace("control", "events"), zmq.SUB) as follower:
            follower.socket.subscribe(b"")

            told = codec.decode_told(follower.socket.recv_multipart())

    assert isinstance(told, Heartbeat)
    assert (told.boot, told.last) == ("boot-1", 3)


def test_every_second_subscriber_is_welcomed_too(directory: Path) -> None:
    """XPUB would tell of the first subscription to a name only."""
    with Teller(directory) as teller:
        events = teller.endpoint.replace("control", "events")
        with Dealer(events, zmq.SUB) as one, Dealer(events, zmq.SUB) as other:
            for dealer in (one, other):
                dealer.socket.subscribe(b"heartbeat")
                assert dealer.socket.recv_multipart()[0] == b"heartbeat"


@pytest.mark.parametrize("frames", [[b"a.b"], [b"a.b", b"{}"], [b"a.b", b"{", b""], [b"heartbeat", b"\xff"]])
def test_what_is_no_event_is_an_error(frames: list[bytes]) -> None:
    """Never half understood."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        codec.decode_told(frames)


def test_a_follower_starts_where_the_daemon_is(directory: Path) -> None:
    """What happened before is not told without being asked for."""
    with Teller(directory) as teller:
        teller.tell(6)
        follower = Follower(teller.endpoint)

        assert list(follower.take(Heartbeat(boot="boot-1", last=5, time=0.0))) == []
        assert numbers(list(follower.take(*teller.ring.after(5, 1)))) == [6]
        assert teller.asked == 0


def test_what_is_told_twice_is_passed_on_once(directory: Path) -> None:
    """An event that was asked for may still arrive by itself."""
    with Teller(directory) as teller:
        teller.tell(3)
        follower = Follower(teller.endpoint, since=0)

        told = [each for event in teller.ring.after(0, 3) for each in follower.take(event)]

    assert numbers(told) == [1, 2, 3]


def test_what_came_before_is_told_on_request(directory: Path) -> None:
    """`since` gives the missing ones in order, then what happens."""
    with Teller(directory) as teller:
        teller.tell(5)

        told = Following(teller.endpoint, since=2).until(5)

    assert numbers(told) == [3, 4, 5]


def test_a_lost_tail_is_found(directory: Path) -> None:
    """Nothing arrived and nothing more happens: the heartbeat shows it."""
    with Teller(directory, losing=1.0) as teller:
        following = Following(teller.endpoint, since=0)
        teller.tell(1)
        following.until(1)
        teller.tell(4)

        following.until(5)

    assert numbers(following.told) == [1, 2, 3, 4, 5]


def test_every_hole_is_mended(directory: Path, seed: int) -> None:
    """Half of the events are lost on the way; the follower has each once, in order."""
    with Teller(directory, losing=0.5, kept=1000, seed=seed) as teller:
        following = Following(teller.endpoint, since=0)
        for _ in range(10):
            teller.tell(30)
            following.until(teller.ring.last)

    assert following.told == list(teller.ring.after(0, 1000))


def test_what_cannot_be_mended_is_told(directory: Path) -> None:
    """The daemon keeps three events: the gap is named, and the rest follows."""
    with Teller(directory, losing=1.0, kept=3) as teller:
        following = Following(teller.endpoint, since=0)
        teller.tell(1)
        following.until(1)
        teller.tell(9)

        told = following.until(10)

    assert told[1] == Lost(boot="boot-1", first=2, last=7)
    assert numbers(told) == [1, 8, 9, 10]


def test_a_new_boot_is_told(directory: Path) -> None:
    """Numbers begin anew: the follower says so and begins with the first of them."""
    with Teller(directory) as teller:
        teller.tell(2)
        following = Following(teller.endpoint, since=0)
        following.until(2)

    with Teller(directory, boot="boot-2") as teller:
        teller.tell(3)
        following.until(3, "boot-2")

    assert [t for t in following.told if isinstance(t, NewBoot)] == [
        NewBoot(boot="boot-2", before="boot-1", last=2)
    ]
    assert numbers(following.told) == [1, 2, 1, 2, 3]


def test_silence_is_told_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that is gone sends nothing; the follower says so, and waits for the next."""
    with Teller(directory) as teller:
        teller.tell(1)
        following = Following(teller.endpoint, since=0)
        following.until(1)

    monkeypatch.setattr(follow, "SILENCE_SECONDS", 0.1)
    silent = [told for told in (next(following.stream),) if isinstance(told, Silent)]
    monkeypatch.undo()
    with Teller(directory, boot="boot-2") as teller:
        teller.tell(1)
        following.until(1, "boot-2")

    assert silent[0].presence is not Presence.LISTENING
    assert sum(isinstance(told, Silent) for told in following.told) == 0


def test_a_number_that_was_never_told_is_refused(directory: Path) -> None:
    """The follower would else wait for it in silence."""
    with Teller(directory) as teller, pytest.raises(CommandError, match="no event 7 yet: 2") as refused:
        teller.tell(2)
        Following(teller.endpoint, since=7).until(8)

    assert refused.value.exit_code is ExitCode.REJECTED
