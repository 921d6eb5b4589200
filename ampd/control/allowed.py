"""The allow-list: which keys may come in over TCP, under what name, and in which role.

A TOML file with a table for each key, written by `ampctl keys allow` or by hand:

    [alice]
    key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    role = "operate"

It is read strictly: an unknown field, a role that does not exist, a key under two names, or a file that others may
write to are errors of the whole list, because half a list is a guess about who may stop a job. The daemon looks at the
file with every handshake and every command, and reads it again when it has changed, so a key that is removed does not come
in again, nor is it heard on a connection that it has, and no signal is needed; a list that has become unreadable lets
nobody in. Events that a removed key subscribed to before go on until it leaves: libzmq cannot end one subscriber.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ampd.control import keyring
from ampd.core.protocol import Role
from ampd.errors import ConfigError

FILE = "allowed.toml"
_HEAD = "# Who may come in over TCP. `ampctl keys allow` and `keys remove` rewrite this file.\n"


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the list."""

    key: str
    role: Literal["view", "operate", "admin"]


class AllowList:
    """The list as the door asks it: by key, and as it is on disk at that moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._by_key: dict[str, tuple[str, Role]] = {}

    def find(self, key: str) -> tuple[str, Role] | None:
        """Name and role of a key; None for one that is not in the list. Raises ConfigError for a bad list."""
        seen = self._look()
        if seen != self._seen:
            listed = load(self._path)
            self._by_key = {each.key: (name, Role[each.role.upper()]) for name, each in listed.items()}
            self._seen = seen
        return self._by_key.get(key)

    def _look(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise ConfigError(f"cannot read {self._path}: {error.strerror}") from None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load(path: Path) -> dict[str, Allowed]:
    """The whole list by name; raises ConfigError at the first thing that is wrong with it."""
    text = keyring.read_trusted(path, forbidden=0o022)
    try:
        listed = msgspec.convert(tomllib.loads(text), dict[str, Allowed])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"{path}: {error}", hint='expected tables like [alice] with key = "..." and role = "view"'
        ) from None
    _check(path, listed)
    return listed


def allow(where: Path, name: str, key: str, role: Literal["view", "operate", "admin"]) -> None:
    """Add a key to the list in a directory of keys; raises ConfigError where name or key are in it already."""
    with _changing(where) as listed:
        if name in listed:
            raise ConfigError(
                f"{name} is in the list already, as {listed[name].role}", hint=f"ampctl keys remove {name}"
            )
        listed[name] = Allowed(key, role)


def remove(where: Path, name: str) -> None:
    """Take a name off the list; raises ConfigError where it is not in it."""
    with _changing(where) as listed:
        if name not in listed:
            raise ConfigError(f"{name} is not in the list", hint=f"in it: {', '.join(listed) or 'nobody'}")
        del listed[name]


def _check(path: Path, listed: Mapping[str, Allowed]) -> None:
    names: dict[str, str] = {}
    for name, each in listed.items():
        if not re.fullmatch(keyring.NAME, name):
            raise ConfigError(
                f"{path}: {name!r} cannot name a key: expected letters, digits, - and _, at most 32"
            )
        if not keyring.is_key(each.key):
            raise ConfigError(f"{path}: the key of {name} is no public key: expected 40 characters of Z85")
        if each.key in names:
            raise ConfigError(f"{path}: {names[each.key]} and {name} have the same key; one key has one name")
        names[each.key] = name


@contextlib.contextmanager
def _changing(where: Path) -> Iterator[dict[str, Allowed]]:
    """The list to be changed in place, written back whole; one change at a time."""
    keyring.prepare(where)
    path = where / FILE
    lock = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        listed = load(path) if path.exists() else {}
        yield listed
        _check(path, listed)
        _write(path, listed)
    finally:
        os.close(lock)


def _write(path: Path, listed: Mapping[str, Allowed]) -> None:
    tables = [f'\n[{name}]\nkey = "{each.key}"\nrole = "{each.role}"\n' for name, each in listed.items()]
    try:
        descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{FILE}-")
        with os.fdopen(descriptor, "w") as file:
            keyring.give(descriptor, path.parent)
            os.fchmod(descriptor, 0o644)
            file.write(_HEAD + "".join(tables))
            file.flush()
            os.fsync(descriptor)
        Path(made).replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", hint="set AMPD_KEYS_DIR") from None
