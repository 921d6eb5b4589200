"""A job whose ranks share the weights, as processes: changed, saved in parts, stopped, and ended by one process alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ampd.core import protocol as p
from tests.daemon.daemons import until
from tests.distributed.test_story import FALLBACKS, becomes_ready
from tests.story.jobs import digits_job, metrics_of

MANY = 1_000_000  # never reached: on no machine may the job end before it is stopped
SHARED = {"distributed": 'processes = 2\nstrategy = "fsdp2"', "checkpoint": "every_windows = 1000"}


@pytest.mark.timeout(300)
def test_ranks_that_share_weights_end_to_end() -> None:
    """The live dtype, the fallbacks and the checkpoint are those of any job; what two ranks saved one process ends."""
    with digits_job(windows=MANY) as job:
        job.write(**SHARED)
        daemon = job.start()
        becomes_ready(daemon)
        daemon.ask(p.Pause())
        assert daemon.ask(p.Set(changes={"dtype": "float16"})).revision == 2
        daemon.ask(p.Inject(fault="overflow", windows=2))
        daemon.ask(p.Resume())
        until("two fallbacks on the page", lambda: metrics_of(daemon)[FALLBACKS] == 2.0)
        daemon.ask(p.Pause())
        saved = Path(daemon.ask(p.Checkpoint()).result["path"])
        assert {"model.0.safetensors", "optimizer.1.safetensors"} <= {file.name for file in saved.iterdir()}
        stopped = daemon.ask(p.Stop())
        assert (stopped.result["saved"], daemon.ends(60)) == (True, 0)

        job.windows = stopped.window + 50
        job.write(distributed="processes = 1")
        alone = job.start()
        assert alone.ends(120) == 0
        (warned,) = (e for e in alone.said("worker.warned") if e["topic"] == "processes")
        assert "saved by 2 processes" in warned["message"]
        rows = [json.loads(line) for line in job.losses.splitlines()]
        assert [row["window"] for row in rows] == list(range(job.windows))
