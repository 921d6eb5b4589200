"""A job that also listens on TCP, with keys for clients in every role."""

from __future__ import annotations

from ampd.control import tcp
from tests.control.keyed import Keyed, keyed
from tests.daemon.daemons import Job


def give_keys(job: Job) -> Keyed:
    """Keys where the job's daemons look for them."""
    job.environment["AMPD_KEYS_DIR"] = str(job.home / "keys")
    return keyed(job.home / "keys")


def listen(job: Job, **sections: str) -> str:
    """Have the job's daemons listen on a pair of ports that nobody had a moment ago; the address."""
    where, *listeners = tcp.listen(tcp.Remote("127.0.0.1", 0))
    for each in listeners:
        each.close()
    job.write(control=f'listen = "{where.address}"', **sections)
    return where.address
