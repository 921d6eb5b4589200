"""A worker that is gone for good pages a person: real daemons, a real Prometheus and Alertmanager, a webhook.

Two jobs at once: one whose worker crashes until its restarts are spent, one whose killed worker waits in a long
back-off. The workers are fakes without torch that die for real; the rules are those that ship, 60 times faster.
"""

from __future__ import annotations

import contextlib
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.daemon.daemons import Daemon, Job
from tests.story.jobs import metrics_of
from tests.telemetry.servers import alertmanager, needs_servers, prometheus, rules_at, webhook

SCALE = 60


@contextlib.contextmanager
def fake_job() -> Iterator[Job]:
    """A job with a fake worker, held when it is over; no process is left behind."""
    with TemporaryDirectory(prefix="ampd-") as home:
        job = Job(Path(home))
        try:
            yield job
        finally:
            job.clean()


def spent(job: Job) -> Daemon:
    """A job that has failed, since its worker crashed once too often; its daemon is held."""
    held = f'name = "toy"\ndirectory = "{job.directory}"\nwindows = 100000\non_finish = "hold"'
    job.write(job=held, restart="backoff_seconds = 0.01\nmax_restarts = 1")
    daemon = job.start(worker="--crash-at 3")
    daemon.reaches("failed")
    return daemon


def waiting(job: Job) -> Daemon:
    """A job whose worker was killed, and is started again in a quarter of an hour."""
    job.write(restart="backoff_seconds = 900")
    daemon = job.start()
    os.kill(daemon.runs(3), signal.SIGKILL)
    daemon.reaches("recovering")
    return daemon


def scraped(daemon: Daemon) -> int:
    """The status of a scrape."""
    with urllib.request.urlopen(f"http://{daemon.status()['http']}/metrics", timeout=10) as answer:
        return int(answer.status)


@needs_servers
@pytest.mark.timeout(240)
def test_a_worker_that_is_gone_for_good_reaches_a_webhook(tmp_path: Path) -> None:
    """The daemon is still scraped, tells its state, and the alert for that state arrives with the right instance."""
    rules = rules_at(tmp_path, SCALE)
    with fake_job() as one, fake_job() as other, webhook() as hook, alertmanager(tmp_path, hook.url) as pager:
        failed, recovering = spent(one), waiting(other)
        addresses = [daemon.status()["http"] for daemon in (failed, recovering)]

        with prometheus(tmp_path, targets=addresses, rules=rules, alertmanager=pager.address):
            lost = hook.wait_for("AmpdJobFailed", seconds=60)
            missing = hook.wait_for("AmpdWorkerMissing", seconds=90)

        assert [lost["labels"]["instance"], missing["labels"]["instance"]] == addresses
        assert (scraped(failed), scraped(recovering)) == (200, 200)
        assert metrics_of(failed)['ampd_job_state{state="failed"}'] == 1
        assert metrics_of(recovering)['ampd_job_state{state="recovering"}'] == 1
        assert metrics_of(recovering)["ampd_windows_total"] >= 3, "figures of the dead worker stay"
