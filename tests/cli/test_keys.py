"""`ampctl keys`, and asking over TCP with what it made: what is printed, what is kept, and where keys are found."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ampd.cli.ampctl import cli
from ampd.cli.ctl_keys import ROLES
from ampd.control import allowed, gate, keyring
from ampd.core.protocol import Role
from tests.control.keyed import Keyed, keyed
from tests.control.served import DEADLINE_SECONDS, Served


def ampctl(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """AMPD_KEYS_DIR: a directory that does not exist yet."""
    with tempfile.TemporaryDirectory(prefix="ampd-") as root:
        monkeypatch.setenv("AMPD_KEYS_DIR", f"{root}/keys")
        yield Path(root) / "keys"


@pytest.fixture
def remote(home: Path) -> Iterator[tuple[Served, Keyed]]:
    """A daemon on TCP whose keys, and those of a client in each role, lie in `home`."""
    keys = keyed(home)
    with (
        tempfile.TemporaryDirectory(prefix="ampd-") as root,
        Served(Path(root) / "job", gate=keys.gate) as served,
    ):
        yield served, keys


def given(output: str) -> list[str]:
    """The words of the line to be pasted, as a shell would read it."""
    return shlex.split(output.splitlines()[-1])


def test_a_key_is_made_allowed_and_used(home: Path) -> None:
    """What `new` prints is pasted as it is, on both sides, and opens the gate."""
    server, alice = ampctl("keys", "new", "--server"), ampctl("keys", "new", "alice")

    allowing = ampctl(*given(alice.stdout)[1:])
    made = gate.read("tcp://127.0.0.1:0")

    assert [result.exit_code for result in (server, alice, allowing)] == [0, 0, 0]
    assert made is not None
    assert given(server.stdout) == ["--server-key", made.own.public]
    assert made.allowed.find(keyring.read(home / "alice.key").public) == ("alice", Role.OPERATE)


def test_a_public_half_may_be_a_file(home: Path) -> None:
    """As it came by mail."""
    pair = keyring.make(home, "alice")

    assert ampctl("keys", "allow", "alice", str(home / "alice.pub"), "--role", "view").exit_code == 0
    assert allowed.load(home / allowed.FILE)["alice"].key == pair.public


def test_who_is_removed_is_off_the_list(home: Path) -> None:
    """And removing nobody is an error."""
    allowed.allow(home, "alice", keyring.pair().public, "view")

    first, second = ampctl("keys", "remove", "alice"), ampctl("keys", "remove", "alice")

    assert (first.exit_code, second.exit_code) == (0, 2)
    assert "alice is not in the list" in second.stderr
    assert allowed.load(home / allowed.FILE) == {}


def test_a_list_shows_public_halves_only(home: Path) -> None:
    """Of the daemon, of the clients here, and of who may come in."""
    keys = keyed(home)
    shown, raw = ampctl("keys", "list").stdout, ampctl("keys", "list", "--json").stdout

    assert json.loads(raw)["server"] == keys.server.public
    assert json.loads(raw)["allowed"]["alice"] == {
        "key": keys.clients[Role.OPERATE].public,
        "role": "operate",
    }
    for pair in (keys.server, *keys.clients.values()):
        assert pair.public in shown
        assert pair.secret not in shown + raw


def test_no_command_prints_a_secret(home: Path) -> None:
    """Neither of those that make keys."""
    printed = ampctl("keys", "new", "--server").output + ampctl("keys", "new", "alice").output

    for path in home.glob("*.key"):
        assert path.read_text().strip() not in printed


def test_an_empty_directory_is_said(home: Path) -> None:
    """With the place that was looked at."""
    assert ampctl("keys", "list").stdout == f"there are no keys in {home}\n"


def test_roles_are_those_of_the_protocol() -> None:
    """Words written out for a fast --help are the protocol's own."""
    assert [word.upper() for word in ROLES] == [role.name for role in Role]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("new", "give the NAME of a client's key, or --server, and not both"),
        ("new alice --server", "and not both"),
        ("new server", "ampctl keys new --server"),
        ("new ../x", "cannot name a key"),
        ("allow alice nonsense --role view", "neither a public key"),
        ("allow alice nonsense --role root", "'root' is not one of"),
        ("allow alice nonsense", "Missing option '--role'"),
    ],
)
def test_a_wrong_line_is_exit_2(line: str, said: str, home: Path) -> None:
    """One message, and nothing is written."""
    result = ampctl("keys", *line.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert not home.exists()


def test_keys_are_given_as_options(remote: tuple[Served, Keyed]) -> None:
    """The daemon's public half itself or its file, and the file of one's own."""
    served, keys = remote
    here = keys.directory

    for server in (keys.server.public, str(here / "server.pub")):
        options = ["--endpoint", served.remote, "--server-key", server, "--key", str(here / "boss.key")]
        assert ampctl(*options, "stop", "--json").exit_code == 0

    authors = {served.requests.get(timeout=DEADLINE_SECONDS)[0].author for _ in range(2)}
    assert authors == {"boss"}


def test_keys_are_given_by_the_environment(
    remote: tuple[Served, Keyed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a shell is set up once, and every command is short."""
    served, keys = remote
    monkeypatch.setenv("AMPD_ENDPOINT", served.remote)
    monkeypatch.setenv("AMPD_SERVER_KEY", keys.server.public)
    monkeypatch.setenv("AMPD_KEY", str(keys.directory / "alice.key"))

    assert ampctl("pause", "--json").exit_code == 0
    assert served.requests.get(timeout=DEADLINE_SECONDS)[0].author == "alice"


def test_keys_are_found_beside_each_other(remote: tuple[Served, Keyed]) -> None:
    """server.pub and the one client's key of the directory need not be named."""
    served, keys = remote
    for name in ("alice", "boss"):
        (keys.directory / f"{name}.key").unlink()

    assert ampctl("--endpoint", served.remote, "status").exit_code == 0
    assert served.requests.get(timeout=DEADLINE_SECONDS)[0].author == "wall"


def test_one_of_several_keys_must_be_picked(remote: tuple[Served, Keyed]) -> None:
    """Which of them is meant is not guessed."""
    result = ampctl("--endpoint", remote[0].remote, "status")

    assert result.exit_code == 2
    assert "alice.key, boss.key, wall.key" in result.stderr
    assert "--key FILE" in result.stderr


def test_what_is_missing_is_said(home: Path) -> None:
    """The daemon's key first, then one's own, each with where it comes from."""
    line = ["--endpoint", "tcp://127.0.0.1:1", "status"]

    first = ampctl(*line)
    second = ampctl("--server-key", keyring.pair().public, *line)

    assert (first.exit_code, second.exit_code) == (2, 2)
    assert f"there is no {home}/server.pub" in first.stderr
    assert "make one with `ampctl keys new NAME`" in second.stderr


def test_keys_are_not_for_a_unix_socket(home: Path) -> None:
    """An option that would do nothing is refused."""
    result = ampctl("--key", "alice.key", "status")

    assert result.exit_code == 2
    assert "a unix socket takes none" in result.stderr


def test_a_job_that_is_named_is_local(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--job on the command line is stronger than an address in the environment."""
    monkeypatch.setenv("AMPD_ENDPOINT", "tcp://127.0.0.1:1")
    monkeypatch.setenv("AMPD_RUNTIME_DIR", str(home))

    assert "no daemon of job 'toy' is running" in ampctl("--job", "toy", "status").stderr
