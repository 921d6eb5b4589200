"""History on real daemons: it survives a kill, and the way back is one more revision that survives too."""

from __future__ import annotations

import signal
from typing import Any

from ampd.core import protocol as p
from tests.daemon.daemons import Daemon, Job


def put(daemon: Daemon, **words: str) -> p.Done:
    """`ampctl set` with keys of [optim]."""
    return daemon.ask(p.Set(changes={f"optim.{key}": value for key, value in words.items()}, reason="why"))


def revisions(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.ask(p.History()).result["revisions"]
    return found


def test_history_survives_a_killed_daemon(job: Job) -> None:
    """Every revision with its window, time, author, reason and what it moved, as before."""
    job.write_for_kills()
    first = job.start()
    first.runs()
    put(first, lr="0.5")
    put(first, lr="0.25", weight_decay="0")
    before = revisions(first)
    first.signal(signal.SIGKILL)
    first.ends()

    second = job.start()
    second.hears("daemon.started")

    after = revisions(second)
    assert [{**r, "time": 0} for r in after] == [{**r, "time": 0} for r in before]
    assert [(c["old"], c["new"]) for r in after for c in r["changes"] if c["key"] == "optim.lr"] == [
        (0.001, 0.5), (0.5, 0.25),
    ]  # fmt: skip


def test_a_rollback_survives_a_killed_daemon(job: Job) -> None:
    """To the revision before, in a new one; the next daemon has its values and its number."""
    job.write_for_kills()
    first = job.start()
    first.runs()
    put(first, lr="0.5")
    put(first, lr="0.25")
    back = first.ask(p.Rollback())
    first.signal(signal.SIGKILL)
    first.ends()

    second = job.start()
    second.hears("daemon.started")

    assert back.revision == 4
    assert second.ask(p.Get(keys=("optim.lr",))).result["values"] == {"optim.lr": 0.5}
    assert [r["revision"] for r in revisions(second)] == [2, 3, 4]


def test_a_question_about_the_past_waits_for_the_journal(job: Job) -> None:
    """Asked in the first moment of a daemon, when its socket answers already, it tells of all earlier ones."""
    first = job.start()
    first.runs()
    put(first, lr="0.5")
    first.signal(signal.SIGTERM)
    first.ends()

    assert len(revisions(job.start())) == 1


def test_what_was_dropped_follows_the_job_file(job: Job) -> None:
    """After `overlay drop` an edited job file holds again at the next start."""
    first = job.start()
    first.runs()
    put(first, lr="0.5")
    first.ask(p.DropOverlay())
    first.signal(signal.SIGTERM)
    first.ends()
    job.write(optim="lr = 0.125")

    second = job.start()
    second.runs()

    assert second.ask(p.Overlay()).result == {"changes": []}
    assert second.ask(p.Get(keys=("optim.lr",))).result["values"] == {"optim.lr": 0.125}
