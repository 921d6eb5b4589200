"""What a daemon needs before it listens on TCP: all of it, or an error that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ampd.control import allowed, gate
from ampd.core.protocol import Role
from ampd.errors import ConfigError
from tests.control.keyed import Keyed, keyed

LISTEN = "tcp://127.0.0.1:5555"


@pytest.fixture
def keys(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Keyed:
    """A directory of keys that `gate` finds."""
    monkeypatch.setenv("AMPD_KEYS_DIR", str(directory))
    return keyed(directory)


def refusal() -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        gate.read(LISTEN)
    assert caught.value.field == "control.listen"
    return caught.value


def test_no_address_needs_nothing() -> None:
    """Without the key in the job file no directory of keys is looked at."""
    assert gate.read("") is None


def test_a_gate_has_address_key_and_list(keys: Keyed) -> None:
    """Read off the directory, with the names of those who may come in."""
    made = gate.read(LISTEN)

    assert made is not None
    assert (made.where.address, made.own, made.names) == (LISTEN, keys.server, ("wall", "alice", "boss"))
    assert made.allowed.find(keys.clients[Role.ADMIN].public) == ("boss", Role.ADMIN)


def test_no_server_key_is_refused(keys: Keyed) -> None:
    """With the command that makes one."""
    (keys.directory / "server.key").unlink()

    error = refusal()

    assert f"there is no {keys.directory}/server.key" in str(error)
    assert error.hint == "ampctl keys new --server"


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
def test_nobody_to_let_in_is_refused(is_there: bool, keys: Keyed) -> None:
    """A port that lets nobody in is a mistake; the command that allows somebody is said."""
    (keys.directory / allowed.FILE).unlink()
    if is_there:
        (keys.directory / allowed.FILE).write_text("# nobody yet\n")

    error = refusal()

    assert "allows nobody" in str(error)
    assert error.hint.startswith("ampctl keys allow ")


def test_a_list_that_others_may_write_is_refused(keys: Keyed) -> None:
    """With the mode and the command that mends it."""
    (keys.directory / allowed.FILE).chmod(0o666)

    assert refusal().hint == f"chmod 0644 {keys.directory}/allowed.toml"


def test_a_secret_that_others_may_read_is_refused(keys: Keyed) -> None:
    """The daemon does not begin with a key that may be known."""
    (keys.directory / "server.key").chmod(0o644)

    assert "others may read" in str(refusal())


def test_the_gate_shows_no_secret(keys: Keyed) -> None:
    """Not even in a traceback."""
    assert keys.server.secret not in repr(gate.read(LISTEN))
