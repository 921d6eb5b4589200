"""TCP addresses: what one is, listening on a pair of ports, and what is found out by connecting."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from ampd.control import tcp
from ampd.control.tcp import Remote
from ampd.errors import CommandError, ConfigError, ExitCode


@contextlib.contextmanager
def listening() -> Iterator[Remote]:
    """A pair of ports of this machine that somebody listens on."""
    where, *listeners = tcp.listen(Remote("127.0.0.1", 0))
    try:
        yield where
    finally:
        for each in listeners:
            each.close()


@pytest.mark.parametrize("text", ["tcp://0.0.0.0:5555", "tcp://gpu-7.lab:1", "tcp://[::1]:5555"])
def test_an_address_reads_as_it_is_written(text: str) -> None:
    """Host and port, an IPv6 number in brackets."""
    assert tcp.parse(text).address == text


def test_events_are_next_door() -> None:
    """One port up, on the same host."""
    assert tcp.parse("tcp://[::1]:5555").events.address == "tcp://[::1]:5556"


@pytest.mark.parametrize(
    "text",
    ["tcp://h", "tcp://:1", "tcp://*:5", "tcp://a:b", "h:5", "tcp://h:65535", "tcp://::1:5", "ipc://h:5"],
)
def test_what_is_no_address_is_told(text: str) -> None:
    """Nothing is guessed: a host and a port that has a neighbour."""
    with pytest.raises(ConfigError, match="expected tcp://HOST:PORT"):
        tcp.parse(text)


def test_a_free_pair_is_found() -> None:
    """Port 0 becomes a port whose neighbour is ours too."""
    with listening() as where:
        for each in (where, where.events):
            socket.create_connection((each.host, each.port), timeout=5).close()


@pytest.mark.parametrize("taken", [0, 1], ids=["commands", "events"])
def test_a_port_that_is_taken_is_told(taken: int) -> None:
    """By its number and the key of the job file; nothing stays open."""
    where, *listeners = tcp.listen(Remote("127.0.0.1", 0))
    listeners[1 - taken].close()  # this one is free again, and nobody else's
    with (
        listeners[taken],
        pytest.raises(ConfigError, match=f":{where.port + taken}: Address already in use") as caught,
    ):
        tcp.listen(where)

    assert caught.value.field == "control.listen"


def test_an_address_of_another_machine_is_told() -> None:
    """One cannot listen there."""
    with pytest.raises(ConfigError, match=r"cannot listen on tcp://192\.0\.2\.1:5555"):
        tcp.listen(Remote("192.0.2.1", 5555))


def test_a_listener_is_reached_by_number() -> None:
    """The name is looked up, and every address of it is tried."""
    with listening() as where:
        assert tcp.reach(Remote("localhost", where.port), 5) == Remote("127.0.0.1", where.port)


def test_nobody_there_is_not_running() -> None:
    """A machine that refuses is up, and has no daemon there: exit 3."""
    with listening() as where:
        pass

    with pytest.raises(CommandError, match="nobody listens") as caught:
        tcp.reach(where, 5)

    assert caught.value.exit_code is ExitCode.NOT_RUNNING


def test_a_black_hole_is_unreachable() -> None:
    """Where no packet comes back, the timeout is the end: exit 4, and surely nothing was sent."""
    with contextlib.ExitStack() as opened:
        hole = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        where = Remote("127.0.0.1", hole.getsockname()[1])
        for _ in range(4):  # the kernel takes in one more than it was asked to, and answers no others
            caller = opened.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect((where.host, where.port))
        with pytest.raises(
            CommandError, match=r"took no connection within 0\.2 s; nothing was sent"
        ) as caught:
            tcp.reach(where, 0.2)

    assert caught.value.exit_code is ExitCode.UNREACHABLE


def test_a_name_that_nobody_knows_is_unreachable() -> None:
    """It is told by its name."""
    with pytest.raises(CommandError, match=r"there is no host 'nowhere\.invalid'") as caught:
        tcp.reach(Remote("nowhere.invalid", 5555), 10)

    assert caught.value.exit_code is ExitCode.UNREACHABLE


def test_a_resolver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that does not answer costs the timeout and no more."""
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])

    with pytest.raises(CommandError, match=r"no name server told .* within 0\.1 s"):
        tcp.reach(Remote("slow.example", 5555), 0.1)

    over.set()
