"""The allow-list: read strictly, changed whole, and looked at again whenever it has changed."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from ampd.control import allowed, keyring
from ampd.control.allowed import AllowList
from ampd.core.protocol import Role
from ampd.errors import ConfigError

ALICE, BOB = keyring.pair().public, keyring.pair().public


@pytest.fixture
def listed(directory: Path) -> Path:
    """A list with alice in it."""
    allowed.allow(directory, "alice", ALICE, "operate")
    return directory / allowed.FILE


def test_a_key_is_found_by_itself(listed: Path) -> None:
    """Name and role of a key that is in the list; None for any other."""
    assert AllowList(listed).find(ALICE) == ("alice", Role.OPERATE)
    assert AllowList(listed).find(BOB) is None


def test_a_change_holds_at_once(listed: Path) -> None:
    """Who is added comes in, who is removed does not, without a word to the daemon."""
    asked = AllowList(listed)
    before = asked.find(ALICE), asked.find(BOB)

    allowed.allow(listed.parent, "bob", BOB, "admin")
    allowed.remove(listed.parent, "alice")

    assert before == (("alice", Role.OPERATE), None)
    assert (asked.find(ALICE), asked.find(BOB)) == (None, ("bob", Role.ADMIN))


def test_a_list_that_went_bad_lets_nobody_in(listed: Path) -> None:
    """Not even who was in it before; and it is well again when the file is."""
    asked, good = AllowList(listed), listed.read_text()
    assert asked.find(ALICE)

    listed.write_text(good + "junk")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"allowed\.toml"):
            asked.find(ALICE)
    listed.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        asked.find(ALICE)
    listed.write_text(good)

    assert asked.find(ALICE) == ("alice", Role.OPERATE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alice = 3", "Expected `object`"),
        ("[alice]\nkey = 'K'", "missing required field `role`"),
        ("[alice]\nkey = 'K'\nrole = 'root'", "Invalid enum value 'root'"),
        ("[alice]\nkey = 'K'\nrole = 'view'\nuntil = 3", "unknown field `until`"),
        ("[alice]\nkey = 'short'\nrole = 'view'", "the key of alice is no public key"),
        ("['a b']\nkey = 'K'\nrole = 'view'", "'a b' cannot name a key"),
        ("[a]\nkey = 'K'\nrole = 'view'\n[b]\nkey = 'K'\nrole = 'admin'", "a and b have the same key"),
        ("[a]\nkey = 'K'\nrole = 'view'\n[a]\nkey = 'K'\nrole = 'view'", "Cannot declare"),
        ("[", "Invalid initial character"),
    ],
)
def test_a_list_is_read_strictly(text: str, said: str, listed: Path) -> None:
    """Anything that is not just right is an error of the whole list, with the file and what is wrong."""
    listed.write_text(text.replace("'K'", f"'{ALICE}'"))

    with pytest.raises(ConfigError) as caught:
        allowed.load(listed)

    assert said in str(caught.value)
    assert str(listed) in str(caught.value)


@pytest.mark.parametrize("bits", [0o664, 0o646, 0o666])
def test_a_list_that_others_may_write_is_refused(bits: int, listed: Path) -> None:
    """Who could write it could let themselves in."""
    listed.chmod(bits)

    with pytest.raises(ConfigError, match="others may write"):
        AllowList(listed).find(ALICE)


def test_a_name_and_a_key_are_in_it_once(listed: Path) -> None:
    """A second one is refused, and the file stays as it was."""
    before = listed.read_text()

    with pytest.raises(ConfigError, match="alice is in the list already, as operate"):
        allowed.allow(listed.parent, "alice", BOB, "view")
    with pytest.raises(ConfigError, match="have the same key"):
        allowed.allow(listed.parent, "bob", ALICE, "view")
    with pytest.raises(ConfigError, match="'a b' cannot name"):
        allowed.allow(listed.parent, "a b", BOB, "view")

    assert listed.read_text() == before


def test_who_is_not_in_it_cannot_be_removed(listed: Path) -> None:
    """A slip of the pen is told, with who is there."""
    with pytest.raises(ConfigError, match="alcie is not in the list") as caught:
        allowed.remove(listed.parent, "alcie")

    assert caught.value.hint == "in it: alice"


def test_the_file_is_for_all_to_read(listed: Path) -> None:
    """It holds no secret, and nothing is left beside it."""
    assert stat.S_IMODE(listed.stat().st_mode) == 0o644
    assert [path.name for path in listed.parent.iterdir()] == [allowed.FILE]


def test_changes_at_the_same_time_are_all_kept(listed: Path) -> None:
    """Two operators do not undo each other's."""
    names = [f"n{number}" for number in range(8)]
    work = [
        threading.Thread(target=allowed.allow, args=(listed.parent, name, keyring.pair().public, "view"))
        for name in names
    ]

    for thread in work:
        thread.start()
    for thread in work:
        thread.join()

    assert set(allowed.load(listed)) == {"alice", *names}
