"""The headline with nothing faked: injected overflows in a real job page a person through real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ampd.core import protocol as p
from tests.story.jobs import digits_job
from tests.telemetry.servers import alertmanager, needs_servers, prometheus, rules_at, webhook

SCALE = 60


@needs_servers
@pytest.mark.timeout(180)
def test_injected_overflows_reach_a_webhook(tmp_path: Path) -> None:
    """A calm job does not alert; overflows make the fallback rule pending, then firing, then a message."""
    rules = rules_at(tmp_path, SCALE)
    with (
        digits_job(windows=100000) as job,
        webhook() as hook,
        alertmanager(tmp_path, hook.url) as pager,
    ):
        daemon = job.start()
        daemon.runs(20)
        targets = [daemon.status()["http"]]
        with prometheus(tmp_path, targets=targets, rules=rules, alertmanager=pager.address) as server:
            server.wait_for_series("rate(ampd_windows_total[5s]) > 0", seconds=20)
            assert "AmpdFallbackSpike" not in server.alerts()

            daemon.ask(p.Set(changes={"dtype": "float16"}))
            daemon.ask(p.Inject(fault="overflow", windows=100000))

            server.wait_for_alert("AmpdFallbackSpike", "pending", seconds=30)
            server.wait_for_alert("AmpdFallbackSpike", "firing", seconds=30)
            alert = hook.wait_for("AmpdFallbackSpike", seconds=20)
        assert alert["status"] == "firing"
        assert alert["labels"]["severity"] == "warning"
        daemon.ask(p.Stop(save=False))
        assert daemon.ends() == 0
