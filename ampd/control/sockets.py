"""Claiming a runtime directory and listening in it, so that a live daemon is never pushed aside.

libzmq's bind on an ipc path unlinks whatever is there first: a second daemon would silently take the first one's
commands. So the listening sockets are made here and handed to libzmq as file descriptors (ZMQ_USE_FD), after
three questions in this order: is the directory ours (owner, mode), is the lock free (flock, which the kernel drops
with its holder, however it dies), and does nobody answer on the path. A stale socket is replaced, a live one never.

Permissions: 0600 in a 0700 directory; with a control group, 0660 in 0750. The mode is set on the socket before
bind (Linux gives it to the file), so there is no moment at which anyone else could connect; the umask, which the
whole process shares, is left alone.
"""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
from pathlib import Path

from ampd.control.endpoints import LOCK, Presence, probe, socket_path
from ampd.errors import ConfigError, JobConflictError

_BACKLOG = 128


class Claim:
    """A runtime directory that is ours until `release`, or until this process is gone."""

    def __init__(self, directory: Path, gid: int | None, lock: int) -> None:
        self.directory = directory
        self.gid = gid
        self._lock = lock
        self._made: list[Path] = []

    def listen(self, name: str, *, shared: bool) -> socket.socket:
        """A listening socket in the directory; `shared` opens it to the control group, where there is one."""
        path = socket_path(self.directory, name)
        listener = listen(path, gid=self.gid if shared else None)
        self._made.append(path)
        return listener

    def release(self) -> None:
        """Remove the sockets made here and give up the lock, whose file stays: another may have it open."""
        for path in self._made:
            path.unlink(missing_ok=True)
        os.close(self._lock)


def claim(directory: Path, *, group: str = "") -> Claim:
    """Make a runtime directory ours; raises JobConflictError where it is another's, ConfigError where it cannot be."""
    gid = _gid_of(group)
    try:
        _prepare(directory, gid)
        return Claim(directory, gid, _take_lock(directory / LOCK))
    except PermissionError as error:
        raise ConfigError(
            f"no permission to use the runtime directory {directory} as uid {os.geteuid()}: {error.strerror}",
            hint="set AMPD_RUNTIME_DIR to a directory of your own",
        ) from None


def listen(path: Path, *, gid: int | None = None) -> socket.socket:
    """A unix socket that listens on `path`; raises JobConflictError where somebody already does."""
    presence = probe(path)
    if presence in (Presence.LISTENING, Presence.FORBIDDEN):
        raise JobConflictError(f"another process listens on {path}; stop it, or give this job another name")
    if presence is Presence.STALE:
        _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(path))
        if gid is not None:
            os.chown(path, -1, gid)
            path.chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror}") from None
    return listener


def _gid_of(group: str) -> int | None:
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            f"control.group = {group!r}: there is no such group", field="control.group",
            hint="create it with groupadd, or leave the key out for the owner only",
        ) from None  # fmt: skip


def _prepare(directory: Path, gid: int | None) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"the runtime directory {directory} is a file, or below one") from None
    _trust(directory.parent)
    _trust(directory)
    if gid is None:
        directory.chmod(0o700)
        return
    try:
        os.chown(directory, -1, gid)
    except PermissionError:
        raise ConfigError(
            f"control.group: uid {os.geteuid()} may not give {directory} to group {grp.getgrgid(gid).gr_name}",
            field="control.group", hint="make the daemon's user a member of the group",
        ) from None  # fmt: skip
    directory.chmod(0o750)


def _trust(directory: Path) -> None:
    """Refuse a directory in which somebody else could swap our sockets for theirs."""
    found = directory.stat()
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{directory} belongs to uid {found.st_uid}; the runtime directory must be of uid {os.geteuid()} or root",
            hint="set AMPD_RUNTIME_DIR to a directory of your own",
        )
    others_write = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    if others_write and found.st_uid != os.geteuid():
        raise ConfigError(
            f"others may write in {directory}: its mode is {found.st_mode & 0o7777:o}",
            hint="set AMPD_RUNTIME_DIR to a directory of your own",
        )


def _take_lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise JobConflictError(
            f"a daemon of this job is running: pid {holder} holds {path}; stop it with `ampctl --job"
            f" {path.parent.name} stop`, or give this job another name"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError(f"{path} is in the way, and is not a socket", hint="move it away")
    path.unlink()
