"""Claiming a runtime directory: modes, the lock, and who is never pushed aside."""

from __future__ import annotations

import grp
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ampd.control import endpoints, sockets
from ampd.errors import ConfigError, JobConflictError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")
_HOLD = """
import sys
from pathlib import Path
from ampd.control import sockets
claimed = sockets.claim(Path(sys.argv[1]))
listener = claimed.listen("control.sock", shared=True)
print("ready", flush=True)
sys.stdin.read()
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    """Another process that has claimed the directory and listens in it."""
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    return other


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_sockets_are_for_the_owner_only(directory: Path) -> None:
    """0600 in a 0700 directory, whatever the umask says."""
    previous = os.umask(0)
    try:
        claimed = sockets.claim(directory)
        with claimed.listen("control.sock", shared=True):
            assert (mode(directory), mode(directory / "control.sock")) == (0o700, 0o600)
        claimed.release()
    finally:
        os.umask(previous)


def test_a_control_group_gets_its_bits(directory: Path) -> None:
    """With a group, 0660 in 0750 and of that group; a socket that is not shared stays the owner's."""
    group = grp.getgrgid(os.getegid())
    claimed = sockets.claim(directory, group=group.gr_name)

    with claimed.listen("control.sock", shared=True), claimed.listen("link.sock", shared=False):
        assert (mode(directory), mode(directory / "control.sock")) == (0o750, 0o660)
        assert (directory / "control.sock").stat().st_gid == group.gr_gid
        assert mode(directory / "link.sock") == 0o600
    claimed.release()


def test_an_unknown_group_is_refused(directory: Path) -> None:
    """A group that is not there is an error of that key, and nothing is made."""
    with pytest.raises(ConfigError, match="no such group") as caught:
        sockets.claim(directory, group="no-such-group-here")

    assert caught.value.field == "control.group"
    assert not directory.exists()


def test_a_second_claim_names_the_first(directory: Path) -> None:
    """A directory that another process holds is refused, with that process's pid."""
    other = hold(directory)

    with other, pytest.raises(JobConflictError, match=f"pid {other.pid} "):
        sockets.claim(directory)


def test_a_claim_in_the_same_process_is_refused_too(directory: Path) -> None:
    """The lock is one per opened file, so a process cannot claim twice either."""
    claimed = sockets.claim(directory)

    with pytest.raises(JobConflictError):
        sockets.claim(directory)
    claimed.release()
    sockets.claim(directory).release()


def test_what_a_killed_process_left_does_not_block(directory: Path) -> None:
    """After kill -9, its lock, pid and socket are in nobody's way."""
    with hold(directory) as other:
        other.send_signal(signal.SIGKILL)
    assert endpoints.probe(directory / "control.sock") is endpoints.Presence.STALE

    claimed = sockets.claim(directory)

    with claimed.listen("control.sock", shared=True):
        assert endpoints.probe(directory / "control.sock") is endpoints.Presence.LISTENING
    assert (directory / "lock").read_text() == f"{os.getpid()}\n"
    claimed.release()


def test_a_live_socket_is_never_stolen(directory: Path) -> None:
    """Even where the lock's file was deleted, a socket that answers stays whose it is."""
    with hold(directory) as other:
        (directory / "lock").unlink()
        claimed = sockets.claim(directory)
        with pytest.raises(JobConflictError, match="another process listens"):
            claimed.listen("control.sock", shared=True)
        assert endpoints.probe(directory / "control.sock") is endpoints.Presence.LISTENING
        other.kill()
    claimed.release()


def test_a_file_in_the_way_is_not_deleted(directory: Path) -> None:
    """What is no socket is somebody's file: refused, and left alone."""
    claimed = sockets.claim(directory)
    (directory / "control.sock").write_text("notes")

    with pytest.raises(ConfigError, match="not a socket"):
        claimed.listen("control.sock", shared=True)

    assert (directory / "control.sock").read_text() == "notes"
    claimed.release()


def test_a_file_as_directory_is_refused(directory: Path) -> None:
    """A runtime directory that is a file is an error of ours, not of the kernel."""
    directory.write_text("")

    with pytest.raises(ConfigError, match="is a file"):
        sockets.claim(directory)


@as_root
def test_another_users_directory_is_refused(directory: Path) -> None:
    """A directory in which another user could swap our sockets is not used."""
    directory.mkdir()
    os.chown(directory, 65534, -1)

    with pytest.raises(ConfigError, match="belongs to uid 65534"):
        sockets.claim(directory)


@as_root
def test_another_users_parent_is_refused(directory: Path) -> None:
    """Nor is one below another user's directory, which could be renamed."""
    os.chown(directory.parent, 65534, -1)

    with pytest.raises(ConfigError, match="belongs to uid 65534"):
        sockets.claim(directory)


@as_root
def test_no_permission_is_explained(directory: Path) -> None:
    """A directory that may not be written in is refused by its name and the uid."""
    script = "import os, sys; os.setuid(65534); exec(sys.stdin.read())"
    claim = (
        f"from ampd.control import sockets; from pathlib import Path; sockets.claim(Path({str(directory)!r}))"
    )
    directory.parent.chmod(0o755)
    preload = "import ampd.control.sockets; "

    ended = subprocess.run(
        [sys.executable, "-c", preload + script], input=claim, text=True, capture_output=True, check=False
    )

    assert "no permission to use the runtime directory" in ended.stderr
    assert "uid 65534" in ended.stderr


def test_a_long_path_is_refused_before_anything_is_made(directory: Path) -> None:
    """A path that the kernel would cut is named with its length."""
    deep = directory / ("d" * 100)
    claimed = sockets.claim(deep)

    with pytest.raises(ConfigError, match="at most 107"):
        claimed.listen("control.sock", shared=True)

    claimed.release()


def test_release_leaves_the_lock_file_and_no_socket(directory: Path) -> None:
    """The lock's file stays, so that two who wait for it cannot lock two different files."""
    claimed = sockets.claim(directory)
    claimed.listen("control.sock", shared=True).close()

    claimed.release()

    assert [path.name for path in directory.iterdir()] == ["lock"]


def test_a_socket_is_usable_at_once(directory: Path) -> None:
    """The listener accepts a connection."""
    claimed = sockets.claim(directory)

    with claimed.listen("a.sock", shared=False) as listener, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(directory / "a.sock"))
        listener.accept()[0].close()
    claimed.release()
