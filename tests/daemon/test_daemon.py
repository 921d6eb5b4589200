"""Daemons as processes: start, serve, crash, restart, stop, and start again, with a worker that computes nothing."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

import pytest

from ampd.core import protocol as p
from ampd.errors import CommandError
from tests.daemon.daemons import Daemon, Job, is_alive

SET = p.Set(changes={"optim.lr": "0.25"})


def test_a_job_runs_to_its_end(job: Job) -> None:
    """Exit 0, the summary on standard output, every move in the log."""
    daemon = job.start(windows=5)

    assert daemon.ends() == 0
    assert "toy: completed" in daemon.out.read_text()
    assert [event["to"] for event in daemon.said("lifecycle.changed")] == ["running", "completed"]


def test_it_answers_while_the_worker_loads(job: Job) -> None:
    """A worker that hangs while it loads takes nothing from the daemon."""
    daemon = job.start(worker="--hang-loading")
    daemon.hears("worker.spoke")

    assert daemon.status()["state"] == "starting"


def test_metrics_are_served_on_the_port_that_status_shows(job: Job) -> None:
    """Port 0 takes a free one, and `ampctl status` says which."""
    daemon = job.start()
    daemon.runs()

    with urllib.request.urlopen(f"http://{daemon.status()['http']}/metrics") as page:
        assert b"ampd_windows_total" in page.read()


def test_the_daemon_never_loads_torch(job: Job) -> None:
    """No torch in its memory, in any library: it must be small, and must answer when CUDA hangs."""
    daemon = job.start()
    daemon.runs()

    assert "torch" not in Path(f"/proc/{daemon.pid}/maps").read_text()


def test_a_change_takes_effect_and_is_answered(job: Job) -> None:
    """From client to loop, journal and back."""
    daemon = job.start()
    daemon.runs()

    done = daemon.ask(SET)

    assert (done.revision, done.window > 0) == (2, True)
    assert daemon.ask(p.Get(keys=("optim.lr",))).result["values"] == {"optim.lr": 0.25}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_start_goes_on(job: Job, number: signal.Signals) -> None:
    """Exit 0, and not a window is lost."""
    first = job.start()
    first.runs(5)
    first.signal(number)
    assert first.ends() == 0
    saved = first.said("checkpoint.saved")[-1]["window"]

    second = job.start()
    second.runs(saved)

    assert second.said("worker.became_ready")[-1]["window"] == saved
    assert second.status()["state_reason"] == f"resumed at window {saved}"


def test_a_stop_is_answered_before_the_daemon_leaves(job: Job) -> None:
    """The client of the stop gets its reply, and then the socket goes."""
    daemon = job.start()
    daemon.runs()

    assert daemon.ask(p.Stop()).result == {"state": "stopped", "saved": True}

    assert daemon.ends() == 0


def test_impatience_kills_a_worker_that_does_not_stop(job: Job) -> None:
    """Three Ctrl-C: gone at once, with 130 because it was not saved."""
    daemon = job.start(worker="--hang-stopping")
    worker = daemon.runs()
    daemon.signal(signal.SIGINT)
    daemon.hears("lifecycle.changed", 2)
    daemon.signal(signal.SIGINT)
    daemon.hears("stop.hurried")
    daemon.signal(signal.SIGINT)

    assert daemon.ends() == 130
    assert not is_alive(worker)
    assert "ampd: interrupted before it saved" in daemon.err.read_text()


def test_a_worker_over_its_save_budget_is_killed(job: Job) -> None:
    """The job has failed, and the message says which key the time comes from."""
    daemon = job.start("--set", "restart.save_budget_seconds=0.2", worker="--hang-stopping")
    daemon.runs()
    daemon.signal(signal.SIGTERM)

    assert daemon.ends() == 1
    assert "restart.save_budget_seconds = 0.2" in daemon.err.read_text()


def test_a_crashed_worker_is_started_again(job: Job) -> None:
    """With the reason and the last lines in the log, and the job goes on."""
    daemon = job.start(worker="--crash-at 3 --crashes 2", windows=6)

    assert daemon.ends() == 0
    assert [event["reason"] for event in daemon.said("worker.died")] == ["exit code 9", "exit code 9"]
    assert daemon.said("worker.died")[0]["last_lines"] == ["the fake was told to crash"]


def test_a_worker_that_always_crashes_fails_the_job(job: Job) -> None:
    """Exit 1 after max_restarts, one message, no traceback of ours."""
    daemon = job.start("--set", "restart.max_restarts=2", worker="--crash-at 3")

    assert daemon.ends() == 1
    message = daemon.err.read_text()
    assert "ampd: the worker crashed 3 times" in message
    assert "hint: see " in message
    assert "Traceback" not in message


def test_a_killed_worker_is_counted_as_killed(job: Job) -> None:
    """SIGKILL is what the kernel does to a process out of memory."""
    daemon = job.start()
    os.kill(daemon.runs(), signal.SIGKILL)
    daemon.hears("lifecycle.changed", 3)

    assert daemon.reaches("running")["restarts"] == {"killed": 1}


def test_a_worker_that_cannot_be_run_is_named(job: Job) -> None:
    """The program is missing: said in words, retried within bounds, exit 1."""
    words = ["start", "--config", str(job.file), "--set", "restart.max_restarts=0"]
    job.daemons.append(Daemon(job.home, words, worker="/nowhere/python", environment=job.environment))

    assert job.daemons[0].ends() == 1
    assert "/nowhere/python cannot be run: No such file or directory" in job.daemons[0].err.read_text()


def test_a_refused_configuration_ends_the_start(job: Job) -> None:
    """What only the device knows still is a configuration error: exit 2, no restart, held or not."""
    daemon = job.start("--set", "job.on_finish=hold", worker="--refuse")

    assert daemon.ends() == 2
    assert "ampd: the device refuses\n  hint: ask less\n" in daemon.err.read_text()
    assert len(daemon.said("worker.started")) == 1


def test_a_held_daemon_serves_until_it_is_stopped(job: Job) -> None:
    """on_finish = "hold": metrics and status stay up after the job."""
    daemon = job.start("--set", "job.on_finish=hold", windows=3)
    assert daemon.reaches("completed")["window"] == 3

    daemon.signal(signal.SIGTERM)

    assert daemon.ends() == 0


def test_a_change_survives_a_killed_daemon(job: Job) -> None:
    """kill -9 of daemon and worker: the change is in the next one's schedule, and its answer is repeated."""
    first = job.start()
    worker = first.runs()
    answer = first.ask(SET, request_id="request-one")
    first.signal(signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    first.process.wait()

    second = job.start()
    second.runs()

    assert second.ask(p.Get(keys=("optim.lr",))).result["values"] == {"optim.lr": 0.25}
    assert second.ask(SET, request_id="request-one") == answer
    assert second.status()["revision"] == 2


def test_a_worker_that_outlived_its_daemon_is_waited_for_and_killed(job: Job) -> None:
    """It holds the job's lock; the next daemon says so, waits out the save budget, and ends it."""
    job.write(restart="save_budget_seconds = 0.3")
    first = job.start()
    worker = first.runs()
    first.signal(signal.SIGKILL)
    first.process.wait()
    assert is_alive(worker)

    second = job.start()
    second.runs()

    assert not is_alive(worker)
    assert f"ampd: worker {worker} of a daemon that is gone" in second.err.read_text()


def test_a_second_daemon_is_turned_away(job: Job) -> None:
    """Exit 6, naming the one that has the job, which goes on undisturbed."""
    first = job.start()
    first.runs()

    second = job.start()

    assert second.ends() == 6
    assert f"the daemon with pid {first.pid} has {job.directory}" in second.err.read_text()
    assert first.status()["state"] == "running"


def test_a_job_of_the_same_name_elsewhere_is_turned_away(job: Job) -> None:
    """The name is that of the sockets; the new directory is not left behind."""
    job.start().runs()
    other = job.home / "other"

    second = job.start("--set", f"job.directory={other}")

    assert second.ends() == 6
    assert not other.exists()


def test_a_port_in_use_starts_nothing(job: Job) -> None:
    """Exit 2 naming the key; neither the directory nor a socket is left."""
    first = job.start()
    first.runs()
    taken = first.status()["http"]
    other = ["--set", "job.name=other", "--set", f"job.directory={job.home}/other/deep"]

    second = job.start(*other, "--set", f"http.listen={taken}")

    assert second.ends() == 2
    assert f"ampd: http.listen = '{taken}'" in second.err.read_text()
    assert not (job.home / "other").exists()
    assert not list((job.home / "rt" / "other").glob("*.sock"))


def test_fresh_moves_aside_and_deletes_nothing(job: Job) -> None:
    """The new run begins at 0, and everything of the old one is in old/."""
    job.start(windows=5).ends()

    daemon = job.start("--fresh", windows=5)

    assert daemon.ends() == 0
    assert daemon.said("worker.became_ready")[0]["window"] == 0
    (old,) = (job.directory / "old").iterdir()
    assert {entry.name for entry in old.iterdir()} == {"fake.json", "journal.jsonl", "worker.log"}


def test_a_reload_changes_what_is_live(job: Job) -> None:
    """SIGHUP: live keys at the next boundary, the others named."""
    daemon = job.start()
    daemon.runs()
    job.write(optim="lr = 0.125", batch="size = 64")
    daemon.signal(signal.SIGHUP)
    told = daemon.hears("config.reloaded")

    assert told["needs_restart"] == ["batch.size"]
    daemon.hears("config.applied")
    assert daemon.ask(p.Get(keys=("optim.lr",))).result["values"] == {"optim.lr": 0.125}


def test_a_bad_reload_changes_nothing(job: Job) -> None:
    """The error is in the log, and the job goes on as it was."""
    daemon = job.start()
    daemon.runs()
    job.file.write_text("[job")
    daemon.signal(signal.SIGHUP)

    assert "is not TOML" in daemon.hears("config.reload_refused")["error"]
    assert daemon.status()["revision"] == 1


def test_a_refusal_has_its_code(job: Job) -> None:
    """Over the real socket too."""
    daemon = job.start()
    daemon.runs()

    with pytest.raises(CommandError, match="fixed while the job runs") as caught:
        daemon.ask(p.Set(changes={"batch.size": "64"}))

    assert caught.value.code == "IMMUTABLE"


def test_the_canonical_line_comes_at_its_interval(job: Job) -> None:
    """One line says how the whole job is doing."""
    daemon = job.start("--set", "log.interval_seconds=0.1")

    assert daemon.hears("job.progressed", 3)["state"] in ("starting", "running")
