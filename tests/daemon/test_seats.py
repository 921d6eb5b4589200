"""Several daemons of one job on one machine, as a launcher with a process for each GPU makes them."""

from __future__ import annotations

from ampd.control import endpoints
from tests.daemon.daemons import Job
from tests.distributed.nodes import free_port


def test_daemons_on_one_machine_have_sockets_and_ports_of_their_own(job: Job) -> None:
    """The first has the job's name and port, the second the next ones."""
    port = free_port()
    job.write(distributed='processes = "env"', http=f'listen = "127.0.0.1:{port}"')
    job.environment |= {
        "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1",
    }  # fmt: skip
    daemon = job.start(worker="--hang-loading")
    daemon.hears("daemon.started")

    assert daemon.said("daemon.started")[0]["http"] == f"127.0.0.1:{port + 1}"
    assert endpoints.probe(job.home / "rt" / "toy-1" / "control.sock") is endpoints.Presence.LISTENING
