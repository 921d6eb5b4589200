"""Metrics of a job of several nodes: each node shows its own ranks, and the job itself is shown once."""

from __future__ import annotations

import pytest

from ampd.core.group import Leader, Place
from ampd.core.precision import Capability, Precision
from ampd.core.view import JobView
from ampd.telemetry.alerts import alerts
from ampd.telemetry.metrics import LEARNING, LEDGER, PRECISION, PROGRESS
from tests.telemetry import views
from tests.telemetry.test_collector import Page

OF_THE_JOB = [name for family in (*PROGRESS, *LEDGER, *LEARNING, *PRECISION) for name in family.series]
KNOWN = views.ready(capability=Capability(device="NVIDIA A10", native=(Precision.FLOAT16,)))
"""On a device whose peak is known."""


def follower() -> JobView:
    """The second node of two, with ranks 2 and 3."""
    return views.running(
        place=Place(host="gpu2", node="gpu2", leads=False), leader=Leader(host="gpu1"), first_rank=2, world=4,
        snapshots={0: views.snapshot(rank=2), 1: views.snapshot(rank=3)},
        heard={0: views.STARTED + 600, 1: views.STARTED + 601}, last_saved=None,
    )  # fmt: skip


def test_ranks_have_their_numbers_in_the_job() -> None:
    """Not those on their node, or two nodes would show the same rank."""
    samples = Page(follower()).samples()

    heard = {key[1]: at for key, at in samples.items() if key[0] == "ampd_worker_heartbeat_timestamp_seconds"}
    assert heard == {"2": views.STARTED + 600, "3": views.STARTED + 601}
    assert samples["ampd_memory_bytes", "3", "peak"] == 512 * 2.0**20
    assert samples["ampd_ranks_alive",] == 2


def test_a_node_says_which_it_is() -> None:
    """One that is alone leads, under the name of its machine."""
    alone, other = Page(views.running(place=Place(host="gpu1"))), Page(follower())

    assert alone.samples()["ampd_node_info", "gpu1", "leader", "gpu1"] == 1
    assert other.samples()["ampd_node_info", "gpu2", "follower", "gpu1"] == 1


@pytest.mark.parametrize("name", OF_THE_JOB)
def test_what_is_the_jobs_is_not_on_a_followers_page(name: str) -> None:
    """A sum over all nodes counts a window once."""
    assert name in {key[0] for key in Page(views.running(ready=KNOWN)).samples()}
    assert name not in {key[0] for key in Page(follower()).samples()}


def test_a_node_that_saves_nothing_is_not_said_to_be_late() -> None:
    """Its leader saves, and its page would tell."""
    now = views.STARTED + 601
    stale = views.job_config(checkpoint={"every_windows": 10})
    leads, follows = views.running(last_saved=None, ready=views.ready(window=0), config=stale), follower()
    follows.config, follows.ready = stale, views.ready(window=0)

    assert "AmpdCheckpointStale" in {alert.name for alert in alerts(leads, now)}
    assert "AmpdCheckpointStale" not in {alert.name for alert in alerts(follows, now)}
