"""The asking side against everything that can be behind a socket: it always ends, with the right exit code."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ampd.control.client import Client, new_request_id
from ampd.core import protocol
from ampd.core.protocol import Code, Done, Refusal, Reply, Request
from ampd.errors import CommandError, ExitCode
from tests.control.served import BOOT, DEADLINE_SECONDS, Served, done

STATUS = protocol.Status()
SET = protocol.Set(changes={"dtype": "float16"})
ADMITTED_SECONDS = 2.0
"""A timeout that leaves even a busy daemon the time to let us in: only then an answer can be missing."""
_SERVE = """
import sys
from pathlib import Path
from tests.control.served import Served
with Served(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def listener(directory: Path) -> Iterator[socket.socket]:
    """A unix socket that listens at `directory`/control.sock and, by itself, never says a word."""
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "control.sock"))
        listening.listen()
        yield listening


def address(directory: Path) -> str:
    return f"ipc://{directory}/control.sock"


def failure(
    directory: Path, command: protocol.AnyCommand = STATUS, timeout: float = DEADLINE_SECONDS
) -> CommandError:
    """The error that asking ends with."""
    with pytest.raises(CommandError) as caught:
        Client(address(directory)).ask(command, timeout)
    return caught.value


def test_an_answer_is_returned(directory: Path) -> None:
    """The Done of our request, whole."""
    with Served(directory, lambda request: done(request, {"a": 1}, revision=2, window=184)) as served:
        answer = Client(served.endpoint).ask(STATUS, DEADLINE_SECONDS)

    assert (answer.boot, answer.revision, answer.window, answer.result) == (BOOT, 2, 184, {"a": 1})


def test_one_client_asks_many_times(directory: Path) -> None:
    """Every question gets the answer to itself, under an id of its own."""
    with Served(directory) as served:
        asking = Client(served.endpoint)
        ids = [asking.ask(STATUS, DEADLINE_SECONDS).id for _ in range(20)]

    assert len(set(ids)) == 20


def test_an_earlier_id_can_be_asked_again(directory: Path) -> None:
    """The id of an attempt that timed out goes out unchanged."""
    with Served(directory) as served:
        Client(served.endpoint).ask(SET, DEADLINE_SECONDS, request_id="0190-earlier")

        assert served.requests.get(timeout=DEADLINE_SECONDS)[1].id == "0190-earlier"


@pytest.mark.parametrize("code", Code)
def test_every_refusal_has_its_exit_code(code: Code, directory: Path) -> None:
    """CONFLICT is 6, FORBIDDEN is 4, everything else is 5; message and hint come through."""

    def refuse(request: Request) -> Reply:
        return Refusal(id=request.id, boot=BOOT, code=code, message="was 3, is 4", hint="look again")

    with Served(directory, refuse):
        error = failure(directory, SET)

    expected = {Code.CONFLICT: ExitCode.CONFLICT, Code.FORBIDDEN: ExitCode.UNREACHABLE}.get(
        code, ExitCode.REJECTED
    )
    assert (error.exit_code, error.code, str(error), error.hint) == (
        expected,
        code.value,
        "was 3, is 4",
        "look again",
    )


def test_a_retryable_refusal_says_so(directory: Path) -> None:
    """BUSY without a hint of its own tells that the same command may succeed later."""

    def refuse(request: Request) -> Reply:
        return Refusal(id=request.id, boot=BOOT, code=Code.BUSY, message="busy", retryable=True)

    with Served(directory, refuse):
        assert "later" in failure(directory).hint


def test_nobody_is_not_running(directory: Path) -> None:
    """No socket at all is exit 3, at once."""
    assert failure(directory).exit_code is ExitCode.NOT_RUNNING


def test_a_stale_socket_is_not_running(directory: Path, listener: socket.socket) -> None:
    """A socket that nobody listens on any more is exit 3, with how to start."""
    listener.close()

    error = failure(directory)

    assert error.exit_code is ExitCode.NOT_RUNNING
    assert "ampd start" in error.hint


def test_a_black_hole_is_unreachable(directory: Path, listener: socket.socket) -> None:
    """A listener that never speaks is exit 4 after the timeout, and surely nothing was done."""
    error = failure(directory, SET, timeout=0.2)

    assert error.exit_code is ExitCode.UNREACHABLE
    assert "did not speak within 0.2 s; nothing was sent" in str(error)


def test_a_full_backlog_is_unreachable(directory: Path, listener: socket.socket) -> None:
    """A listener that has no room for one more ends in time too."""
    listener.listen(0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(directory / "control.sock"))

        assert failure(directory, timeout=0.2).exit_code is ExitCode.UNREACHABLE


def test_a_stranger_is_unreachable(directory: Path, listener: socket.socket) -> None:
    """A listener that speaks another protocol is exit 4."""

    def speak() -> None:
        for _ in range(2):  # the first connection is only the client's look whether anybody listens
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100)

    stranger = threading.Thread(target=speak)
    stranger.start()
    error = failure(directory, SET, timeout=1)
    stranger.join(DEADLINE_SECONDS)

    assert error.exit_code is ExitCode.UNREACHABLE
    assert "nothing was sent" in str(error)


def test_a_tunnel_without_an_end_is_unreachable(directory: Path, listener: socket.socket) -> None:
    """A forwarded socket takes connections when its daemon is gone, and hangs up; that is said."""

    def hang_up() -> None:
        for _ in range(2):  # the first connection is only the client's look whether anybody listens
            listener.accept()[0].close()

    tunnel = threading.Thread(target=hang_up)
    tunnel.start()
    error = failure(directory, SET, timeout=DEADLINE_SECONDS)
    tunnel.join(DEADLINE_SECONDS)

    assert error.exit_code is ExitCode.UNREACHABLE
    assert "hung up in the handshake" in str(error) and "nothing was sent" in str(error)


def test_a_stopped_daemon_is_unreachable_in_time(directory: Path) -> None:
    """A daemon under SIGSTOP, where even its threads stand still, does not hang the client."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None and daemon.stdout.readline() == "ready\n"
        daemon.send_signal(signal.SIGSTOP)
        stopped = failure(directory, SET, timeout=0.3)
        daemon.send_signal(signal.SIGCONT)
        answer = Client(address(directory)).ask(STATUS, DEADLINE_SECONDS)

    assert stopped.exit_code is ExitCode.UNREACHABLE
    assert answer.boot == BOOT


def test_no_answer_in_time_is_unknown(directory: Path) -> None:
    """A daemon that took the request and says nothing is exit 7, with the id to ask again under."""
    with Served(directory, lambda _: None) as served:
        error = failure(directory, SET, timeout=ADMITTED_SECONDS)
        request = served.requests.get(timeout=DEADLINE_SECONDS)[1]

    assert error.exit_code is ExitCode.TIMED_OUT
    assert f"no answer within {ADMITTED_SECONDS:g} s: the outcome is unknown" in str(error)
    assert f"--request-id {request.id}" in error.hint


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [(STATUS, ExitCode.NOT_RUNNING), (SET, ExitCode.TIMED_OUT)],
    ids=["read", "change"],
)
def test_a_daemon_that_dies_meanwhile(
    command: protocol.AnyCommand, exit_code: ExitCode, directory: Path
) -> None:
    """Its end is noticed at once: a read is then not running, a change has an unknown outcome."""

    def die(_: Request) -> None:
        served.loop.loop.call_soon(served.server.close)

    with Served(directory, die) as served:
        error = failure(directory, command)

    assert error.exit_code is exit_code
    assert "ended before it answered" in str(error)


def test_an_answer_to_another_request_is_not_taken(directory: Path) -> None:
    """Only a reply under our id is ours."""

    def confuse(request: Request) -> Reply:
        return Done(id="somebody-elses", boot=BOOT, revision=1, window=1, result={})

    with Served(directory, confuse):
        assert failure(directory, timeout=ADMITTED_SECONDS).exit_code is ExitCode.TIMED_OUT


def test_ids_are_those_of_uuid_version_7() -> None:
    """128 bits in hex with version and variant in place, which the protocol takes."""
    made = new_request_id()

    assert len(made) == 32 and int(made, 16)
    assert (made[12], made[16] in "89ab") == ("7", True)


def test_ids_sort_by_time_and_never_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later one is greater, and those of one millisecond differ."""
    first = new_request_id()
    later = time.time_ns() + 5_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)

    made = {new_request_id() for _ in range(1000)}

    assert len(made) == 1000
    assert all(first < one for one in made)
