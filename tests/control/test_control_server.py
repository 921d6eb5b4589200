"""The control server over real sockets: every answer that it gives by itself, roles, and what cannot stop it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import zmq

from ampd.control import zap
from ampd.control.server import ControlServer, Peer
from ampd.core import protocol
from ampd.core.protocol import MAX_REQUEST_BYTES, Code, Done, Event, Request, Role
from ampd.errors import ConfigError, JobConflictError
from tests.control.served import BOOT, DEADLINE_SECONDS, Dealer, Served, done

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
ID = "0190-abcdef"
STATUS = json.dumps({"v": 1, "id": ID, "command": {"op": "status"}}).encode()
_AS_NOBODY = """
import os, sys
import msgspec
from ampd.control.client import Client
from ampd.core import protocol
from ampd.errors import CommandError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for command in (protocol.Status(), protocol.Set(changes={"dtype": "float16"}), protocol.Stop()):
    try:
        print(Client(sys.argv[1]).ask(command, 5).boot)
    except CommandError as error:
        print(error.code, int(error.exit_code))
"""


def as_nobody(endpoint: str) -> list[str]:
    """What a client of the user nobody gets for a status, a set and a stop."""
    ended = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, endpoint], capture_output=True, text=True, check=True, timeout=60
    )
    return ended.stdout.splitlines()


def test_a_request_is_answered(directory: Path) -> None:
    """A request reaches the handler with its peer, and its reply comes back with its id."""
    with Served(directory) as served, Dealer(served.endpoint) as dealer:
        reply = dealer.ask(STATUS)
        peer, request = served.requests.get(timeout=DEADLINE_SECONDS)

    assert isinstance(reply, Done) and (reply.id, reply.boot) == (ID, BOOT)
    assert request == Request(v=1, id=ID, command=protocol.Status())
    assert (peer.role, peer.author) == (Role.ADMIN, zap.name_of(os.geteuid()))


@pytest.mark.parametrize(
    ("frames", "code", "request_id"),
    [
        ((b"not json",), Code.BAD_JSON, ""),
        ((b"",), Code.BAD_JSON, ""),
        ((b'{"v":1,"v":1,"id":"0190-abcdef"}',), Code.BAD_JSON, ID),
        ((b"", STATUS), Code.BAD_FRAME, ID),
        ((STATUS, STATUS), Code.BAD_FRAME, ID),
        ((b"x",) * 1000, Code.BAD_FRAME, ""),
        ((STATUS.replace(b'"v": 1', b'"v": 9'),), Code.BAD_VERSION, ID),
        ((STATUS.replace(b"status", b"statsu"),), Code.UNKNOWN_OP, ID),
        ((STATUS.replace(b'"status"', b'"status", "x": 1'),), Code.BAD_VALUE, ID),
        ((STATUS.ljust(MAX_REQUEST_BYTES + 1),), Code.TOO_LARGE, ID),
    ],
)
def test_what_is_no_request_is_answered_too(
    frames: tuple[bytes, ...], code: Code, request_id: str, directory: Path
) -> None:
    """Every kind of bad message gets its code, with the id where there is one, and reaches no handler."""
    with Served(directory) as served, Dealer(served.endpoint) as dealer:
        refusal = dealer.ask_badly(*frames)

        assert (refusal.code, refusal.id, refusal.boot) == (code, request_id, BOOT)
        assert served.requests.empty()
        assert isinstance(dealer.ask(STATUS), Done)


def test_a_huge_message_costs_its_sender_the_connection(directory: Path) -> None:
    """A message beyond what is worth an answer is not taken in, and others are served."""
    with Served(directory) as served, Dealer(served.endpoint) as flood, Dealer(served.endpoint) as dealer:
        flood.socket.send(b"x" * (8 * MAX_REQUEST_BYTES))

        assert isinstance(dealer.ask(STATUS), Done)
        assert served.requests.qsize() == 1


def test_a_bug_in_the_handler_is_answered_and_reported(directory: Path) -> None:
    """A handler that raises gives INTERNAL to its peer, a report to the loop, and the next request is served."""

    def script(request: Request) -> Done | None:
        raise ZeroDivisionError("bug")

    with Served(directory, script) as served, Dealer(served.endpoint) as dealer:
        codes = [dealer.ask_badly(STATUS).code for _ in range(2)]
        failures = served.loop.failures

    assert codes == [Code.INTERNAL, Code.INTERNAL]
    assert [type(failure["exception"]) for failure in failures] == [ZeroDivisionError, ZeroDivisionError]


def test_a_reply_to_a_vanished_peer_is_dropped(directory: Path) -> None:
    """A peer that left before its answer does not disturb the server."""
    with Served(directory, lambda _: None) as served:
        with Dealer(served.endpoint) as dealer:
            dealer.socket.send(STATUS)
            peer, request = served.requests.get(timeout=DEADLINE_SECONDS)
        reply = Done(id=request.id, boot=BOOT, revision=1, window=1, result={})
        for _ in range(100):
            served.loop.call(served.server.reply, peer, reply)
        with Dealer(served.endpoint) as dealer:
            dealer.socket.send(STATUS)
            assert served.requests.get(timeout=DEADLINE_SECONDS)


def test_a_peer_that_never_reads_blocks_nobody(directory: Path) -> None:
    """Replies to a peer that reads nothing are dropped once its queue is full; the loop stays free."""
    padding = "x" * 10000
    with Served(directory, lambda _: None) as served, Dealer(served.endpoint) as deaf:
        deaf.socket.rcvhwm = 1
        deaf.socket.send(STATUS)
        peer, _ = served.requests.get(timeout=DEADLINE_SECONDS)
        reply = Done(id=ID, boot=BOOT, revision=1, window=1, result={"padding": padding})

        for _ in range(5000):
            served.loop.call(served.server.reply, peer, reply)


def test_many_requests_at_once_are_all_answered(directory: Path) -> None:
    """A burst from several clients is answered whole: no wake-up is lost."""
    with Served(directory) as served, Dealer(served.endpoint) as one, Dealer(served.endpoint) as two:
        for _ in range(500):
            one.socket.send(STATUS)
            two.socket.send(STATUS)
        answers = [dealer.socket.recv() for _ in range(500) for dealer in (one, two)]

    assert len(answers) == 1000


def test_the_last_reply_is_out_before_the_end(directory: Path) -> None:
    """An answer given just before close arrives whole, even one that the kernel does not take at once."""
    with Served(directory, lambda _: None) as served, Dealer(served.endpoint) as dealer:
        dealer.socket.send(STATUS)
        peer, request = served.requests.get(timeout=DEADLINE_SECONDS)

        def answer_and_close() -> None:
            served.server.reply(peer, done(request, {"padding": "x" * 4_000_000}))
            served.server.close()

        served.loop.call(answer_and_close)
        assert msgspec.json.decode(dealer.socket.recv())["id"] == ID


def test_a_reply_does_not_swallow_the_news_of_a_request(directory: Path) -> None:
    """A request that arrives just when another is answered is not overlooked, though nothing more wakes the loop."""
    with Served(directory) as served, Dealer(served.endpoint) as dealer:
        assert isinstance(dealer.ask(STATUS), Done)
        peer, request = served.requests.get(timeout=DEADLINE_SECONDS)

        def answer_while_one_arrives() -> None:
            dealer.socket.send(STATUS)
            served.server._router.poll(round(1000 * DEADLINE_SECONDS))  # takes the news in, as a send may
            served.server.reply(Peer(b"nobody", peer.role, peer.author), done(request))

        served.loop.call(answer_while_one_arrives)
        assert msgspec.json.decode(dealer.socket.recv())["id"] == ID


def test_events_reach_subscribers_by_name(directory: Path) -> None:
    """An event goes to who asked for its name's beginning, as name and JSON."""
    event = Event(boot=BOOT, seq=4, time=1.5, name="window.fell_back", fields={"window": 3})
    with (
        Served(directory) as served,
        Dealer(served.endpoint.replace("control", "events"), zmq.SUB) as follower,
    ):
        follower.socket.subscribe(b"window.")
        follower.socket.rcvtimeo = 20
        for _ in range(round(DEADLINE_SECONDS / 0.02)):  # until the subscription has arrived
            served.publish(event)
            try:
                name, frame = follower.socket.recv_multipart()
                break
            except zmq.Again:
                continue

    assert name == b"window.fell_back"
    assert msgspec.json.decode(frame, type=Event) == event


def test_publishing_to_nobody_or_to_a_closed_server_is_fine(directory: Path) -> None:
    """Events and replies after close vanish in silence: shutting down has no order that could fail."""
    with Served(directory) as served:
        served.loop.call(served.server.close)
        served.publish(Event(boot=BOOT, seq=1, time=0.0, name="a.b", fields={}))


def test_a_second_server_is_refused_and_the_first_unharmed(directory: Path) -> None:
    """The loser names our pid, and the winner goes on answering on the same socket."""
    with Served(directory) as served:
        with pytest.raises(JobConflictError, match=f"pid {os.getpid()} "):
            ControlServer.bind(directory, boot="other")
        with Dealer(served.endpoint) as dealer:
            assert dealer.ask(STATUS).boot == BOOT


def test_a_failed_bind_gives_everything_back(directory: Path) -> None:
    """After a bind that could not be, the directory can be claimed at once."""
    directory.mkdir()
    (directory / "events.sock").write_text("in the way")
    with pytest.raises(ConfigError):
        ControlServer.bind(directory, boot="b")
    (directory / "events.sock").unlink()

    ControlServer.bind(directory, boot="b").close()

    assert [path.name for path in directory.iterdir()] == ["lock"]


_VERSION_1 = b"\x01\x00" + bytes([len(STATUS) + 1, 0]) + STATUS
_VERSION_2 = b"\xff" + b"\0" * 8 + b"\x7f\x01\x05" + b"\0\0" + bytes([0, len(STATUS)]) + STATUS


@pytest.mark.parametrize("stream", [_VERSION_1, _VERSION_2, b"GET / HTTP/1.1\r\n\r\n", b"\xff" + b"\0" * 200])
def test_a_peer_that_skips_the_door_gets_nothing(stream: bytes, directory: Path) -> None:
    """Old versions of the transport, which know no authentication, and strangers are cut off unheard."""
    with Served(directory) as served:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(DEADLINE_SECONDS)
            raw.connect(served.endpoint.removeprefix("ipc://"))
            raw.sendall(stream)
            raw.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(4096):
                    pass
        assert served.requests.empty()


@as_root
def test_the_files_keep_another_user_out(directory: Path) -> None:
    """Without a control group another user does not even reach the socket."""
    directory.parent.chmod(0o755)
    with Served(directory) as served:
        assert as_nobody(served.endpoint) == ["FORBIDDEN 4"] * 3


@as_root
def test_the_door_keeps_another_user_out(directory: Path) -> None:
    """Where somebody opened the files to all, the kernel's word on the peer still refuses another user."""
    directory.parent.chmod(0o755)
    with Served(directory) as served:
        directory.chmod(0o755)
        (directory / "control.sock").chmod(0o666)

        assert as_nobody(served.endpoint) == ["FORBIDDEN 4"] * 3
        assert served.requests.empty()


@as_root
def test_a_member_of_the_group_may_look_and_no_more(directory: Path) -> None:
    """A real process of another uid in the control group gets a status, and no change."""
    directory.parent.chmod(0o755)
    with Served(directory, group="nogroup") as served:
        assert as_nobody(served.endpoint) == [BOOT, "FORBIDDEN 4", "FORBIDDEN 4"]
        peer, _ = served.requests.get(timeout=DEADLINE_SECONDS)

    assert (peer.role, peer.author) == (Role.VIEW, "nobody")
