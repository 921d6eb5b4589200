"""The control server and its clients over TCP with keys: who comes in, as whom, and what the others are told."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from ampd.control import allowed, keyring
from ampd.control.client import Client
from ampd.control.endpoints import Presence
from ampd.control.follow import Follower, Silent
from ampd.control.keyring import Credentials
from ampd.core import protocol
from ampd.core.protocol import MAX_REQUEST_BYTES, Code, Done, Event, Role
from ampd.errors import CommandError, ConfigError, ExitCode
from tests.control.keyed import Keyed, keyed, stranger
from tests.control.served import BOOT, DEADLINE_SECONDS, Dealer, Served
from tests.control.telling import Following, Teller

STATUS = protocol.Status()
FRAME = b'{"v": 1, "id": "0190-abcdef", "command": {"op": "status"}}'


@pytest.fixture
def keys(directory: Path) -> Keyed:
    return keyed(directory.parent / "keys")


@pytest.fixture
def served(keys: Keyed, directory: Path) -> Iterator[Served]:
    """A server that listens on TCP too."""
    with Served(directory, gate=keys.gate) as server:
        yield server


def failure(served: Served, credentials: Credentials, timeout: float = DEADLINE_SECONDS) -> CommandError:
    """The error that asking over TCP ends with."""
    with pytest.raises(CommandError) as caught:
        Client(served.remote, credentials).ask(STATUS, timeout)
    return caught.value


@pytest.mark.parametrize("role", Role)
def test_a_key_is_a_name_and_a_role(role: Role, served: Served, keys: Keyed) -> None:
    """The list says both; the name is what the history will show."""
    assert Client(served.remote, keys.credentials(role)).ask(STATUS, DEADLINE_SECONDS).boot == BOOT

    peer, _ = served.requests.get(timeout=DEADLINE_SECONDS)
    assert (peer.role, peer.author) == (role, {0: "wall", 1: "alice", 2: "boss"}[role])


def test_both_ways_lead_to_one_server(served: Served, keys: Keyed) -> None:
    """A local peer needs no key, and is known by its uid as before."""
    Client(served.endpoint).ask(STATUS, DEADLINE_SECONDS)
    Client(served.remote, keys.credentials(Role.VIEW)).ask(STATUS, DEADLINE_SECONDS)

    roles = [served.requests.get(timeout=DEADLINE_SECONDS)[0].role for _ in range(2)]
    assert roles == [Role.ADMIN, Role.VIEW]


def test_an_unknown_key_is_told_so(served: Served, keys: Keyed, caplog: pytest.LogCaptureFixture) -> None:
    """Exit 4 with the key and what its operator can do; the daemon's log has key and address."""
    credentials = stranger(keys.server)

    with caplog.at_level(logging.WARNING, logger="ampd.control"):
        error = failure(served, credentials)

    assert (error.exit_code, error.code) == (ExitCode.UNREACHABLE, "FORBIDDEN")
    assert f"does not allow the key {credentials.own.public}" in str(error)
    assert "ampctl keys allow" in error.hint
    assert f"the key {credentials.own.public} from 127.0.0.1 is not in the list" in caplog.text
    assert served.requests.empty()


def test_another_daemons_key_is_told_so(served: Served, keys: Keyed) -> None:
    """A daemon that cannot read our first word hangs up, and that is said at once instead of tried for ever."""
    wrong = Credentials(keyring.pair().public, keys.clients[Role.ADMIN])

    error = failure(served, wrong)

    assert error.exit_code is ExitCode.UNREACHABLE
    assert f"its key is not {wrong.server}" in str(error)
    assert "--server-key" in error.hint


def test_a_list_that_went_bad_is_told_so(served: Served, keys: Keyed) -> None:
    """It is the daemon's trouble, not the key's: nobody comes in, and the two are told apart."""
    (keys.directory / allowed.FILE).write_text("junk")

    assert "cannot read its list" in str(failure(served, keys.credentials(Role.ADMIN)))


def test_a_key_that_is_removed_does_not_come_in_again(served: Served, keys: Keyed) -> None:
    """From the next connection on, without a signal or a restart."""
    credentials = keys.credentials(Role.OPERATE)
    Client(served.remote, credentials).ask(STATUS, DEADLINE_SECONDS)

    allowed.remove(keys.directory, "alice")

    assert "does not allow the key" in str(failure(served, credentials))


def test_a_key_that_is_removed_is_not_heard_any_more(served: Served, keys: Keyed) -> None:
    """Not even on a connection that it made before; who is still in the list is."""
    alice, boss = keys.credentials(Role.OPERATE), keys.credentials(Role.ADMIN)
    with (
        Dealer(served.remote, credentials=alice) as removed,
        Dealer(served.remote, credentials=boss) as kept,
    ):
        assert isinstance(removed.ask(FRAME), Done) and isinstance(kept.ask(FRAME), Done)

        allowed.remove(keys.directory, "alice")

        refusal = removed.ask_badly(FRAME)
        assert isinstance(kept.ask(FRAME), Done)
    assert (refusal.code, refusal.id) == (Code.FORBIDDEN, "0190-abcdef")
    assert f"the key {alice.own.public} of alice is no longer in the list" in refusal.message
    assert served.requests.qsize() == 3


def test_a_key_that_gets_another_role_has_it_at_once(served: Served, keys: Keyed) -> None:
    """On its present connection too: what was allowed a moment ago is not."""
    boss = keys.credentials(Role.ADMIN)
    stop = FRAME.replace(b"status", b"stop")
    with Dealer(served.remote, credentials=boss) as dealer:
        assert isinstance(dealer.ask(stop), Done)

        allowed.remove(keys.directory, "boss")
        allowed.allow(keys.directory, "boss", boss.own.public, "view")

        assert "boss has the role view; this needs admin" in dealer.ask_badly(stop).message


def test_a_list_that_cannot_be_read_lets_nobody_speak(served: Served, keys: Keyed) -> None:
    """Who is connected is told what is wrong, and local peers are answered."""
    with Dealer(served.remote, credentials=keys.credentials(Role.ADMIN)) as dealer:
        assert isinstance(dealer.ask(FRAME), Done)

        (keys.directory / allowed.FILE).write_text("junk")

        refusal = dealer.ask_badly(FRAME)
    assert refusal.code is Code.FORBIDDEN and "cannot be looked up" in refusal.message
    Client(served.endpoint).ask(STATUS, DEADLINE_SECONDS)


def test_without_keys_nobody_is_heard(served: Served) -> None:
    """Neither plain ZeroMQ, nor a local peer's way of speaking, gets a word in over TCP."""
    with Dealer(served.endpoint) as plain, Dealer(served.endpoint) as local:
        plain.socket.connect(served.remote)
        plain.socket.disconnect(served.endpoint)
        plain.socket.send(FRAME)

        assert isinstance(local.ask(FRAME), Done)
    assert served.requests.qsize() == 1


def test_tcp_needs_credentials(served: Served) -> None:
    """A client without any is an error of usage, before anything is sent."""
    with pytest.raises(ConfigError, match="TCP needs keys"):
        Client(served.remote)


def test_a_listener_without_keys_is_a_stranger(keys: Keyed) -> None:
    """A port behind which something else speaks is exit 4, and nothing was sent."""

    def speak() -> None:
        for _ in range(2):  # the first connection is only the client's look whether anybody listens
            with listening.accept()[0] as connection, contextlib.suppress(ConnectionError):
                connection.sendall(b"\xff" + b"\0" * 8 + b"\x7f\x03\x01NULL".ljust(55, b"\0"))
                connection.settimeout(DEADLINE_SECONDS)
                while connection.recv(4096):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        other = threading.Thread(target=speak)
        other.start()
        with pytest.raises(CommandError, match="speaks something else") as caught:
            Client(f"tcp://127.0.0.1:{listening.getsockname()[1]}", keys.credentials(Role.VIEW)).ask(
                STATUS, 5
            )
        other.join(DEADLINE_SECONDS)

    assert caught.value.exit_code is ExitCode.UNREACHABLE


def test_a_handshake_that_fails_before_the_request_is_told_too(
    keys: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the stranger is faster than we: there is nowhere left to send to, and that must not wait for ever."""
    connect, hung_up = zmq.Socket.connect, threading.Event()

    def speak() -> None:
        listening.accept()[0].close()  # the client's look whether anybody listens
        with listening.accept()[0] as connection, contextlib.suppress(ConnectionError):
            connection.sendall(b"\xff" + b"\0" * 8 + b"\x7f\x03\x01NULL".ljust(55, b"\0"))
            while connection.recv(4096):
                pass
        hung_up.set()

    def connect_and_dawdle(socket: zmq.Socket[bytes], address: str) -> None:
        connect(socket, address)
        assert not address.startswith("tcp:") or hung_up.wait(DEADLINE_SECONDS)

    monkeypatch.setattr(zmq.Socket, "connect", connect_and_dawdle)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        other = threading.Thread(target=speak)
        other.start()
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(CommandError, match="speaks something else"):
            Client(address, keys.credentials(Role.VIEW)).ask(STATUS, DEADLINE_SECONDS)
        other.join(DEADLINE_SECONDS)


def test_a_silent_port_is_unreachable(keys: Keyed) -> None:
    """A process that is stopped still takes connections; the timeout is the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(CommandError) as caught:
        Client(f"tcp://127.0.0.1:{listening.getsockname()[1]}", keys.credentials(Role.VIEW)).ask(STATUS, 0.2)

    assert "did not speak within 0.2 s; nothing was sent" in str(caught.value)


def test_events_come_by_the_next_port(keys: Keyed, directory: Path) -> None:
    """A follower over TCP hears what happens, and asks over TCP for what it missed."""
    with Teller(directory, gate=keys.gate, losing=0.5) as teller:
        following = Following(teller.remote, credentials=keys.credentials(Role.VIEW), since=0)
        teller.tell(20)

        numbers = [told.seq for told in following.until(20) if isinstance(told, Event)]

    assert numbers == list(range(1, 21))


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_follower_with_a_wrong_key_ends(whose: str, served: Served, keys: Keyed) -> None:
    """It is told at once, where ZeroMQ would try again in silence for ever."""
    credentials = (
        stranger(keys.server)
        if whose == "ours"
        else Credentials(keyring.pair().public, keys.clients[Role.VIEW])
    )

    with pytest.raises(CommandError, match=r"does not allow the key|its key is not"):
        next(Follower(served.remote, credentials).follow())


def test_a_follower_outlives_its_daemon(
    keys: Keyed, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was heard and is gone is waited for, over TCP too."""
    with Teller(directory, gate=keys.gate) as teller:
        following = Following(teller.remote, credentials=keys.credentials(Role.VIEW), since=0)
        teller.tell(1)
        following.until(1)
    monkeypatch.setattr("ampd.control.follow.SILENCE_SECONDS", 0.2)

    assert next(following.stream) == Silent(presence=Presence.STALE)


def test_a_peer_that_says_nothing_loses_its_place(
    keys: Keyed, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever connects over TCP has a short while to prove a key; local peers have their own."""
    monkeypatch.setattr("ampd.control.server._REMOTE_HANDSHAKE_MILLISECONDS", 200)
    with Served(directory, gate=keys.gate) as served:
        host, _, port = served.remote.removeprefix("tcp://").partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as silent:  # half of a local peer's while
            while silent.recv(4096):  # the daemon's greeting, then its end
                pass


def test_a_flood_of_connections_stops_nobody(served: Served, keys: Keyed) -> None:
    """While hundreds hold a connection and say nothing, local peers and keys are answered."""
    host, _, port = served.remote.removeprefix("tcp://").partition(":")
    held = [socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) for _ in range(300)]
    try:
        Client(served.endpoint).ask(STATUS, DEADLINE_SECONDS)
        Client(served.remote, keys.credentials(Role.VIEW)).ask(STATUS, DEADLINE_SECONDS)
    finally:
        for each in held:
            each.close()


def test_a_huge_message_of_an_admitted_peer_costs_it_the_connection(served: Served, keys: Keyed) -> None:
    """What is beyond an answer is not taken in over TCP either, and others are served."""
    credentials = keys.credentials(Role.VIEW)
    with Dealer(served.remote, credentials=credentials) as flood:
        flood.socket.send(b"x" * (8 * MAX_REQUEST_BYTES))

        Client(served.remote, credentials).ask(STATUS, DEADLINE_SECONDS)
    assert served.requests.qsize() == 1
