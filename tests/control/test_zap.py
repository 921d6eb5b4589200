"""Who gets which role, from what the kernel says of a peer."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from ampd.control import zap
from ampd.core.protocol import Role

STRANGER = 4_000_000


def test_the_address_carries_uid_and_gid() -> None:
    """The last three fields are the kernel's, whatever stands before them."""
    assert zap.credentials("localhost:1000:100:4711") == (1000, 100)
    assert zap.credentials("::1:0:5:1") == (0, 5)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost:a:b:c", ""])
def test_an_address_without_credentials_is_no_address(address: str) -> None:
    """Anything else fails loudly, and nobody is admitted by mistake."""
    with pytest.raises(ValueError, match=r"."):
        zap.credentials(address)


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_the_owner_and_root_are_admin(uid: int) -> None:
    """Both may do everything, with or without a control group."""
    assert zap.role_of(uid, STRANGER) is Role.ADMIN


def test_a_stranger_is_refused() -> None:
    """Another user has no role, neither without a group nor outside it."""
    group = grp.getgrgid(os.getegid()).gr_name

    assert zap.role_of(STRANGER, STRANGER) is None
    assert zap.role_of(STRANGER, STRANGER, group=group) is None


def test_the_primary_group_counts() -> None:
    """A peer that runs with the control group's gid may look."""
    group = grp.getgrgid(os.getegid())

    assert zap.role_of(STRANGER, group.gr_gid, group=group.gr_name) is Role.VIEW


def test_supplementary_groups_count() -> None:
    """A user whom /etc/group lists in the control group may look, whatever gid the process has."""
    user = next((u for u in pwd.getpwall() if u.pw_uid not in (0, os.geteuid())), None)
    assert user is not None
    group = grp.getgrgid(user.pw_gid).gr_name

    assert zap.role_of(user.pw_uid, STRANGER, group=group) is Role.VIEW


def test_a_user_without_a_name_is_written_by_number() -> None:
    """The record names a uid that the system does not know."""
    assert zap.name_of(STRANGER) == f"uid:{STRANGER}"
    assert zap.name_of(0) == "root"


@pytest.mark.parametrize("key", ["", "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"], ids=["local", "key"])
@pytest.mark.parametrize("role", Role)
def test_a_role_survives_the_wire(role: Role, key: str) -> None:
    """What a connection carries is read back as it was, blanks in the name included."""
    assert zap.read_user_id(zap.user_id(role, "Ada L", key).decode()) == (role, "Ada L", key)
