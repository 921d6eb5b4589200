"""A real daemon on TCP: refused without keys, and with them the same job as over its unix socket."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from ampd.control import allowed, tcp
from ampd.control.client import Client
from ampd.core import protocol as p
from ampd.core.protocol import Role
from ampd.errors import CommandError
from tests.control.keyed import Keyed, stranger
from tests.daemon.daemons import PATIENCE_SECONDS, Daemon, Job
from tests.daemon.remote import give_keys, listen


@pytest.fixture
def keys(job: Job) -> Keyed:
    return give_keys(job)


@pytest.fixture
def remote(job: Job, keys: Keyed) -> Iterator[tuple[Daemon, str]]:
    """A daemon that runs, and its address on TCP."""
    address = listen(job)
    daemon = job.start()
    daemon.runs()
    yield daemon, address


def test_tcp_without_keys_is_refused_at_start(job: Job) -> None:
    """Exit 2 with the command that makes one, and nothing is made."""
    job.environment["AMPD_KEYS_DIR"] = str(job.home / "keys")
    job.write(control='listen = "tcp://127.0.0.1:0"')
    daemon = job.start()

    assert daemon.ends() == 2
    assert "ampctl keys new --server" in daemon.err.read_text()
    assert not job.directory.exists()


def test_tcp_that_lets_nobody_in_is_refused_at_start(job: Job, keys: Keyed) -> None:
    """A list without a name is as good as no list."""
    (keys.directory / allowed.FILE).write_text("")
    job.write(control='listen = "tcp://127.0.0.1:0"')
    daemon = job.start()

    assert daemon.ends() == 2
    assert "allows nobody" in daemon.err.read_text()


def test_a_port_that_is_taken_is_refused_at_start(job: Job, keys: Keyed) -> None:
    """With the address; the loser leaves nothing behind."""
    where, *listeners = tcp.listen(tcp.Remote("127.0.0.1", 0))
    job.write(control=f'listen = "{where.address}"')
    daemon = job.start()

    assert daemon.ends() == 2
    assert f"cannot listen on {where.address}" in daemon.err.read_text()
    assert not job.directory.exists()
    for each in listeners:
        each.close()


def test_a_change_by_key_has_the_keys_name(remote: tuple[Daemon, str], keys: Keyed) -> None:
    """The history says who it was, and the local socket shows the same history."""
    daemon, address = remote
    alice = Client(address, keys.credentials(Role.OPERATE))

    done = alice.ask(p.Set(changes={"optim.lr": "0.25"}, reason="from afar"), PATIENCE_SECONDS)

    assert done.revision == 2
    assert [r["author"] for r in daemon.ask(p.History()).result["revisions"]] == ["alice"]


def test_a_stop_needs_the_admins_key(remote: tuple[Daemon, str], keys: Keyed) -> None:
    """Who operates is refused, who administers ends the job with 0."""
    daemon, address = remote

    with pytest.raises(CommandError, match="alice has the role operate; this needs admin"):
        Client(address, keys.credentials(Role.OPERATE)).ask(p.Stop(), PATIENCE_SECONDS)
    Client(address, keys.credentials(Role.ADMIN)).ask(p.Stop(), PATIENCE_SECONDS)

    assert daemon.ends() == 0


def test_a_refused_key_is_in_the_log(remote: tuple[Daemon, str], keys: Keyed) -> None:
    """As a line like any other, with the key and where it came from."""
    daemon, address = remote
    credentials = stranger(keys.server)

    with pytest.raises(CommandError, match="does not allow the key"):
        Client(address, credentials).ask(p.Status(), PATIENCE_SECONDS)

    assert f"the key {credentials.own.public} from 127.0.0.1" in daemon.hears("library.complained")["message"]
    assert keys.server.secret not in daemon.err.read_text()


@pytest.fixture
def few_files() -> Iterator[None]:
    """A low limit of open files, which the daemon inherits, below one that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_the_limit_of_files_is_raised(job: Job, keys: Keyed) -> None:
    """A flood of connections then meets the handshake's patience before it meets the end of our files."""
    listen(job)
    daemon = job.start()
    daemon.runs()

    limits = Path(f"/proc/{daemon.pid}/limits").read_text().splitlines()
    soft, hard = next(line for line in limits if line.startswith("Max open files")).split()[3:5]
    assert soft == hard != "512"
