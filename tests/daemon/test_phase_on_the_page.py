"""What a worker has declared is on the metrics page at once, though it may say nothing else for minutes."""

from __future__ import annotations

import urllib.request

import pytest

from ampd.control.endpoints import PULSE
from ampd.control.lifeline import PulsePage
from ampd.core import protocol as p
from ampd.core.phase import Phase
from tests.daemon.daemons import Job, until


@pytest.mark.parametrize("phase", [Phase.EVALUATION, Phase.CHECKPOINT])
def test_a_declared_phase_is_shown_without_a_report(job: Job, phase: Phase) -> None:
    """The rule of a silent worker leans on it: a page that waited for the next snapshot would show what was before."""
    daemon = job.start()
    daemon.runs()
    daemon.ask(p.Pause())  # the fake says nothing while it is paused, and never declares anything
    pulse = PulsePage.open(f"ipc://{job.home / 'rt' / 'toy' / PULSE}")

    page = f"http://{daemon.status()['http']}/metrics"
    pulse.declare(Phase.PAUSED)
    until("the phase before", lambda: _shows(page, Phase.PAUSED))

    pulse.declare(phase)

    until(f"the phase {phase}", lambda: _shows(page, phase))


def _shows(page: str, phase: Phase) -> bool:
    with urllib.request.urlopen(page) as answer:
        return f'ampd_worker_phase{{phase="{phase}"}} 1.0' in answer.read().decode()
