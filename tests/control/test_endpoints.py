"""Finding sockets: the place for each environment, and which daemon a command means."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ampd.control import endpoints
from ampd.control.endpoints import Endpoint, Presence
from ampd.errors import CommandError, ConfigError, ExitCode


@pytest.fixture
def root(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AMPD_RUNTIME_DIR, empty."""
    monkeypatch.setenv("AMPD_RUNTIME_DIR", str(directory))
    directory.mkdir()
    return directory


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    """Sockets to be closed after the test."""
    opened: list[socket.socket] = []
    yield opened
    for listener in opened:
        listener.close()


def listen(root: Path, job: str, listeners: list[socket.socket]) -> Path:
    """A daemon's control socket, with somebody behind it."""
    (root / job).mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listeners.append(listener)
    listener.bind(str(root / job / endpoints.CONTROL))
    listener.listen()
    return root / job / endpoints.CONTROL


def leave_stale(root: Path, job: str) -> Path:
    """A control socket whose daemon is gone."""
    left: list[socket.socket] = []
    path = listen(root, job, left)
    left[0].close()
    return path


def test_ampd_runtime_dir_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMPD_RUNTIME_DIR beats every other place."""
    monkeypatch.setenv("AMPD_RUNTIME_DIR", "/x")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/ampd/other")

    assert endpoints.runtime_directory("job") == Path("/x/job")


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("/run/ampd/unit", "/run/ampd/unit"),
        ("/run/ampd", "/run/ampd/job"),
        ("/run/ampd/a:/run/b", "/run/ampd/a"),
    ],
)
def test_systemds_directory_is_used(service: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's own directory is taken as it is, a shared one gets a directory for the job."""
    monkeypatch.delenv("AMPD_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("RUNTIME_DIRECTORY", service)

    assert endpoints.runtime_directory("job") == Path(expected)


@pytest.mark.parametrize(
    ("uid", "xdg", "expected"),
    [
        (0, "/run/user/0", "/run/ampd/job"),
        (4242, "/run/user/4242", "/run/user/4242/ampd/job"),
        (4242, "", "/tmp/ampd-4242/job"),
    ],
)
def test_the_user_decides_the_rest(
    uid: int, xdg: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root uses /run, a user the session's directory, and /tmp where there is none."""
    for name in ("AMPD_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", xdg)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert endpoints.runtime_directory("job") == Path(expected)


def test_a_path_of_107_bytes_is_the_longest() -> None:
    """The kernel's limit is kept to the byte, and what is over it is refused with figures and a way out."""
    name = "a.sock"
    longest = Path("/" + "d" * (107 - len(name) - 2))

    assert len(str(endpoints.socket_path(longest, name))) == 107
    with pytest.raises(ConfigError, match=r"has 108 bytes.*at most 107") as caught:
        endpoints.socket_path(Path(f"{longest}d"), name)
    assert "AMPD_RUNTIME_DIR" in caught.value.hint


def test_bytes_are_counted_and_not_characters() -> None:
    """A name in UTF-8 counts with its bytes."""
    with pytest.raises(ConfigError, match="bytes"):
        endpoints.socket_path(Path("/" + "\N{SNOWMAN}" * 40), "a.sock")


def test_a_probe_tells_the_four_apart(root: Path, listeners: list[socket.socket]) -> None:
    """Somebody, nobody any more, nothing at all: each is a value of its own."""
    assert endpoints.probe(listen(root, "live", listeners)) is Presence.LISTENING
    assert endpoints.probe(leave_stale(root, "stale")) is Presence.STALE
    assert endpoints.probe(root / "none" / "control.sock") is Presence.ABSENT


def test_a_probe_never_waits_for_a_full_backlog(root: Path, listeners: list[socket.socket]) -> None:
    """A listener whose backlog is full is somebody, and does not block who asks."""
    path = listen(root, "busy", listeners)
    listeners[0].listen(0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    listeners.extend(waiting)
    for caller in waiting:
        caller.setblocking(False)
        caller.connect_ex(str(path))

    assert endpoints.probe(path) is Presence.LISTENING


def test_the_only_daemon_is_found(root: Path, listeners: list[socket.socket]) -> None:
    """One live socket among stale ones is the one that is meant."""
    leave_stale(root, "old")
    path = listen(root, "live", listeners)

    assert endpoints.find(None, None) == Endpoint("live", path)
    assert endpoints.find("live", None).address == f"ipc://{path}"


def test_several_daemons_need_a_name(root: Path, listeners: list[socket.socket]) -> None:
    """Two daemons are listed by name, and the error says how to pick one."""
    listen(root, "one", listeners)
    listen(root, "two", listeners)

    with pytest.raises(ConfigError, match="2 daemons are running: one, two") as caught:
        endpoints.find(None, None)

    assert "--job" in caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE
    assert endpoints.find("two", None).job == "two"


def test_no_daemon_is_exit_3(root: Path) -> None:
    """With nobody about, the error says so, where it looked, and how to start one."""
    with pytest.raises(CommandError, match="no daemon is running") as caught:
        endpoints.find(None, None)

    assert caught.value.exit_code is ExitCode.NOT_RUNNING
    assert "ampd start" in caught.value.hint
    assert str(root) in caught.value.hint


def test_a_stale_socket_is_not_a_daemon(root: Path) -> None:
    """A socket that a killed daemon left is exit 3, by job too."""
    leave_stale(root, "old")

    for job in (None, "old"):
        with pytest.raises(CommandError) as caught:
            endpoints.find(job, None)
        assert caught.value.exit_code is ExitCode.NOT_RUNNING


def test_another_job_is_not_taken_for_the_one_asked(root: Path, listeners: list[socket.socket]) -> None:
    """A name that is not running is an error that lists what is."""
    listen(root, "one", listeners)

    with pytest.raises(CommandError, match="no daemon of job 'two'") as caught:
        endpoints.find("two", None)

    assert caught.value.hint == "running: one"


@pytest.mark.parametrize("form", ["ipc://{}", "{}"])
def test_an_endpoint_is_taken_as_it_is(form: str, root: Path, listeners: list[socket.socket]) -> None:
    """An address, a socket or a runtime directory names a daemon, whatever else runs."""
    path = listen(root, "one", listeners)
    listen(root, "two", listeners)

    assert endpoints.find(None, form.format(path)) == Endpoint("one", path)
    assert endpoints.find(None, form.format(path.parent)) == Endpoint("one", path)


def test_a_missing_endpoint_is_exit_3(root: Path) -> None:
    """An endpoint that is not there is not running."""
    with pytest.raises(CommandError, match="there is no socket") as caught:
        endpoints.find(None, f"ipc://{root}/none.sock")

    assert caught.value.exit_code is ExitCode.NOT_RUNNING


def test_another_transport_is_refused_by_name(root: Path) -> None:
    """Only unix sockets and TCP are served, and the error shows their forms."""
    with pytest.raises(ConfigError, match="http is not served; expected a unix socket or tcp"):
        endpoints.find(None, "http://127.0.0.1:5555")
