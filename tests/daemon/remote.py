"""A job that also listens on TCP, with keys for clients in every role."""

from __future__ import annotations

import contextlib
import random

from ampd.control import tcp
from ampd.errors import ConfigError
from tests.control.keyed import Keyed, keyed
from tests.daemon.daemons import Job


def give_keys(job: Job) -> Keyed:
    """Keys where the job's daemons look for them."""
    job.environment["AMPD_KEYS_DIR"] = str(job.home / "keys")
    return keyed(job.home / "keys")


def listen(job: Job, **sections: str) -> str:
    """Have the job's daemons listen on a pair of ports that nobody had a moment ago; the address.

    They are below those that the kernel gives to connections, so that none is taken while a daemon is started again.
    """
    where = _free()
    job.write(control=f'listen = "{where.address}"', **sections)
    return where.address


def _free() -> tcp.Remote:
    while True:
        wanted = tcp.Remote("127.0.0.1", random.SystemRandom().randrange(20000, 32000, 2))
        with contextlib.suppress(ConfigError):
            where, *listeners = tcp.listen(wanted)
            for each in listeners:
                each.close()
            return where
