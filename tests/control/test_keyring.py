"""Key files: made whole and private, read only where they are to be trusted, and never shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import zmq

from ampd.control import keyring
from ampd.control.keyring import Credentials, KeyPair
from ampd.errors import ConfigError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_pair_is_two_files(directory: Path) -> None:
    """The secret half for its owner alone, the public half for all, in a directory that is private."""
    previous = os.umask(0)
    try:
        made = keyring.make(directory / "keys", "alice")
    finally:
        os.umask(previous)

    where = directory / "keys"
    assert (mode(where), mode(where / "alice.key"), mode(where / "alice.pub")) == (0o700, 0o600, 0o644)
    assert keyring.read(where / "alice.key") == made
    assert keyring.public(str(where / "alice.pub")) == made.public == keyring.public(made.public)


def test_the_halves_belong_together() -> None:
    """They are a pair of libzmq's, and no public half looks like an option of a command line."""
    pairs = [keyring.pair() for _ in range(1000)]

    assert all(zmq.curve_public(pair.secret.encode()).decode() == pair.public for pair in pairs)
    assert [pair for pair in pairs if pair.public.startswith("-")] == []


def test_no_key_is_replaced(directory: Path) -> None:
    """A second pair of that name is refused, and the first stays."""
    made = keyring.make(directory, "alice")

    with pytest.raises(ConfigError, match="never replaced"):
        keyring.make(directory, "alice")

    assert keyring.read(directory / "alice.key") == made


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 33, "a.b"])
def test_a_name_is_a_word(name: str, directory: Path) -> None:
    """What could leave the directory, or break a table of TOML, names no key."""
    with pytest.raises(ConfigError, match="cannot name a key"):
        keyring.make(directory, name)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o644, 0o660])
def test_a_secret_that_others_can_read_is_refused(bits: int, directory: Path) -> None:
    """As ssh does it: with the mode, and the command that mends it."""
    keyring.make(directory, "alice")
    (directory / "alice.key").chmod(bits)

    with pytest.raises(ConfigError, match=f"its mode is {bits:04o}") as caught:
        keyring.read(directory / "alice.key")

    assert caught.value.hint == f"chmod 0600 {directory / 'alice.key'}"


def test_a_directory_that_others_can_write_in_is_refused(directory: Path) -> None:
    """There a key could be swapped for another."""
    keyring.make(directory, "alice")
    directory.chmod(0o777)

    with pytest.raises(ConfigError, match="others may write"):
        keyring.read(directory / "alice.key")


@as_root
def test_another_users_key_is_refused(directory: Path) -> None:
    """A file of a stranger may be anything at the next moment."""
    keyring.make(directory, "alice")
    os.chown(directory / "alice.key", 65534, -1)

    with pytest.raises(ConfigError, match="belongs to uid 65534"):
        keyring.read(directory / "alice.key")


@as_root
def test_root_makes_keys_for_the_directorys_owner(directory: Path) -> None:
    """So that a daemon with a user of its own can read what root made for it."""
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)

    keyring.make(directory, "server")

    assert {path.stat().st_uid for path in directory.iterdir()} == {65534}


@pytest.mark.parametrize("text", ["", "short", "x" * 41, "~" * 40, "#" * 40, "\N{BLACK STAR}" * 40])
def test_what_is_no_key_is_told(text: str, directory: Path) -> None:
    """Wrong length, foreign characters, and Z85 that stands for no 32 bytes."""
    directory.mkdir(mode=0o700)
    (directory / "a.key").write_text(text)
    (directory / "a.key").chmod(0o600)

    with pytest.raises(ConfigError, match="not a secret key"):
        keyring.read(directory / "a.key")
    with pytest.raises(ConfigError, match="neither a public key"):
        keyring.public(text or "nothing")


def test_what_is_missing_or_binary_is_told(directory: Path) -> None:
    """Neither ends in a traceback."""
    directory.mkdir(mode=0o700)
    (directory / "b.key").write_bytes(b"\xff\xfe")
    (directory / "b.key").chmod(0o600)

    with pytest.raises(ConfigError, match="No such file"):
        keyring.read(directory / "a.key")
    with pytest.raises(ConfigError, match="not text"):
        keyring.read(directory / "b.key")


def test_a_directory_that_cannot_be_made_is_told(directory: Path) -> None:
    """With the variable that names another."""
    directory.write_text("")

    with pytest.raises(ConfigError, match="cannot make the directory of keys") as caught:
        keyring.make(directory / "keys", "alice")

    assert "AMPD_KEYS_DIR" in caught.value.hint


def test_a_secret_is_never_shown() -> None:
    """Not in a repr, which is what logs and tracebacks hold, nor in that of what contains it."""
    pair: KeyPair = keyring.pair()

    assert pair.public in repr(pair)
    assert pair.secret not in repr(pair) + str(pair) + repr(Credentials(pair.public, pair))


def test_the_directory_is_the_operators_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMPD_KEYS_DIR before all; root has /etc/ampd/keys; anybody else a directory at home."""
    monkeypatch.setenv("AMPD_KEYS_DIR", "/somewhere")
    assert keyring.directory() == Path("/somewhere")

    monkeypatch.delenv("AMPD_KEYS_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert keyring.directory() == Path("/etc/ampd/keys")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/ada/.config")
    assert keyring.directory() == Path("/home/ada/.config/ampd/keys")


def test_clients_are_the_keys_that_are_not_the_daemons(directory: Path) -> None:
    """By name, in order."""
    for name in ("zoe", keyring.SERVER, "ada"):
        keyring.make(directory, name)

    assert [path.stem for path in keyring.clients(directory)] == ["ada", "zoe"]
