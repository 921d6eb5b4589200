"""The pages for people: aligned, complete, plain where nobody can see colours."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from ampd.cli import ctl_pages
from ampd.cli.ampctl import cli
from ampd.core.protocol import Done
from tests.cli.conftest import Serve
from tests.control.served import done

STATUS: dict[str, Any] = {
    "name": "bytegpt", "state": "running", "state_reason": "", "directory": "/jobs/b", "boot": "b", "pid": 42,
    "http": "127.0.0.1:9647", "endpoint": "ipc:///run/ampd/bytegpt/control.sock", "started": 0.0,
    "uptime_seconds": 3725.0, "window": 184, "total_windows": 1000, "epoch": 2, "revision": 3, "precision": "float16",
    "precision_reason": "named in the configuration", "scale": 65536.0, "loss": 1.23456, "best_loss": 1.5,
    "grad_norm": 0.5, "lr": 0.002, "windows_per_second": 4.0, "samples_per_second": 128.0, "windows": 184,
    "applied": 183, "skipped": {"data": 1}, "fp32_fallbacks": {"forward": 3, "scale": 4, "model": 0},
    "standing": {"phase": "evaluation", "seconds": 61.2, "budget_seconds": 300.0}, "restarts": {}, "memory": {"resident": 1_234_567_890.0}, "device": "cpu", "parameters": 10, "resumed": False,
    "checkpoint": {"window": 100, "path": "/jobs/b/checkpoints/100", "age_seconds": 61.0}, "message": "",
}  # fmt: skip


def answer(**result: Any) -> Done:
    return Done(id="i" * 8, boot="b", revision=3, window=184, result=result)


def page(**changed: Any) -> dict[str, str]:
    """The lines of a status page by their labels."""
    lines = ctl_pages.status(answer(**STATUS | changed)).splitlines()
    return {line[2:14].strip(): line[14:] for line in lines[1:]} | {"title": lines[0]}


def test_status_says_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure that an operator asks for is on the page, with its unit and reason."""
    monkeypatch.setenv("NO_COLOR", "1")

    assert page() == {
        "title": "bytegpt  running",
        "window": "184 of 1000 (18.4 %), epoch 2, 3 min 24 s left",
        "phase": "evaluation, 1 min 01 s without progress (budget 5 min 00 s)",
        "precision": "float16 (named in the configuration)",
        "loss": "1.235 (best 1.5)",
        "loss scale": "65536",
        "gradients": "norm 0.5, lr 0.002",
        "fallbacks": "7 (forward 3, scale 4)",
        "skipped": "1 (data 1)",
        "speed": "4 windows/s, 128 samples/s",
        "memory": "resident 1.23 GB",
        "checkpoint": "window 100, 1 min 01 s ago, /jobs/b/checkpoints/100",
        "restarts": "0",
        "metrics": "http://127.0.0.1:9647/metrics",
        "revision": "3",
        "daemon": "pid 42, up 1 h 02 min, /jobs/b",
    }


@pytest.mark.parametrize(
    ("leader", "shown"),
    [
        (None, "gpu2, leads"),
        ({"host": "gpu1", "endpoint": ""}, "gpu2, follows gpu1"),
        ({"host": "gpu1", "endpoint": "tcp://gpu1:5555"}, "gpu2, follows gpu1 (tcp://gpu1:5555)"),
    ],
)
def test_a_node_says_whom_it_follows(leader: dict[str, str] | None, shown: str) -> None:
    """Where changes are made; a job of one node says nothing of it."""
    assert page(node="gpu2", leader=leader)["node"] == shown
    assert "node" not in page(node="", leader=None)


def test_what_is_not_known_yet_is_a_dash() -> None:
    """A daemon that has just started shows no figure that it does not have."""
    unknown = ("window", "precision", "loss", "best_loss", "scale", "grad_norm", "lr", "windows_per_second",
               "samples_per_second", "checkpoint", "http", "total_windows", "epoch")  # fmt: skip
    shown = page(**dict.fromkeys(unknown), state="starting", memory={}, fp32_fallbacks={})

    assert (shown["window"], shown["loss"], shown["loss scale"], shown["metrics"]) == ("-", "-", "-", "-")
    assert (shown["checkpoint"], shown["memory"], shown["fallbacks"]) == ("none yet", "-", "0")


def test_a_reason_and_a_message_are_shown() -> None:
    """Why a job is in its state stands beside the state, and a last message at the end."""
    shown = page(state="failed", state_reason="worker killed by signal 9", message="no checkpoint")

    assert shown["title"].endswith("(worker killed by signal 9)")
    assert shown["message"] == "no checkpoint"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR the state is a plain word; without, it has a colour."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = ctl_pages.status(answer(**STATUS))
    monkeypatch.setenv("NO_COLOR", "1")
    plain = ctl_pages.status(answer(**STATUS))

    assert "\x1b[" in coloured
    assert "\x1b[" not in plain


def test_a_pipe_gets_no_colour(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not a terminal gets the same page as plain text, without being asked."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    serve(lambda request: done(request, STATUS))

    result = CliRunner().invoke(cli, ["status"])

    assert result.stdout.startswith("bytegpt  running\n  window      184 of 1000")


def test_several_changes_are_a_line_each() -> None:
    """Every key that moved has its own line, with revision and window."""
    changes = [
        {"key": "optim.lr", "old": 0.001, "new": 0.0003},
        {"key": "clip.max_norm", "old": None, "new": 1.0},
    ]

    assert ctl_pages.changes(answer(changes=changes, dry_run=False)).splitlines() == [
        "revision 3 applied at window 184: optim.lr 0.001 -> 0.0003",
        "revision 3 applied at window 184: clip.max_norm none -> 1",
    ]


def test_a_dry_run_does_not_claim_to_have_changed() -> None:
    """A rehearsal says would."""
    changes = [{"key": "amp.enabled", "old": True, "new": False}]

    text = ctl_pages.changes(answer(changes=changes, dry_run=True))

    assert text == "would change amp.enabled true -> false (now revision 3)"


def test_a_change_that_changes_nothing_says_so() -> None:
    """Setting what already holds names the revision that holds it."""
    assert (
        ctl_pages.changes(answer(changes=[], dry_run=False))
        == "nothing to change: revision 3 holds these values"
    )


def test_values_are_aligned() -> None:
    """Keys, values, units and what is live stand in columns."""
    keys = {"optim.lr": {"live": True, "unit": ""}, "batch.size": {"live": False, "unit": "samples"}}

    text = ctl_pages.values(answer(values={"optim.lr": 0.002, "batch.size": 32}, keys=keys))

    assert text.splitlines() == [
        "optim.lr    =  0.002           live",
        "batch.size  =  32     samples  fixed",
    ]


def test_the_ledger_of_job_and_span_side_by_side() -> None:
    """Counts with their causes, ratios, scale and loss, and what the mean left out."""
    job = {
        "windows": 100,
        "skipped": {"data": 2},
        "replays": {"forward": {"float32": 3}},
        "fallback_ratio": 0.03,
    }
    span = {"windows": 10, "skipped": {}, "replays": {}, "fallback_ratio": 0.0}
    scale, loss = {"min": 1024.0, "mean": 2048.5, "max": 4096.0}, {"mean": 1.5, "left_out": 2}

    lines = ctl_pages.stats(answer(job=job, span=span, scale=scale, loss=loss)).splitlines()

    assert [line.split("  ")[0] for line in lines[1:]] == [
        "windows", "skipped", "replays", "fallback ratio", "scale min/mean/max", "mean loss",
    ]  # fmt: skip
    assert "2 (data 2)" in lines[2] and lines[2].endswith("  0")
    assert "3 (forward>float32 3)" in lines[3]
    assert lines[5].endswith("1024 / 2048 / 4096") and lines[6].endswith("1.5 (2 not finite, left out)")


def test_the_time_of_a_window_is_taken_apart() -> None:
    """The greatest share first; what takes none is left out, and all of it before a window was sampled."""
    spent = {"data": 0.0, "forward": 0.03, "backward": 0.06, "optimizer": 0.01}

    line = ctl_pages.stats(answer(job={}, span={}, window_seconds=spent)).splitlines()[-1]

    assert line.split(maxsplit=4)[4] == "0.1 s (backward 60 %, forward 30 %, optimizer 10 %)"
    assert "time of a window" not in ctl_pages.stats(answer(job={}, span={}, window_seconds={}))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (90000, "1 d 01 h")],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    """Two units at most, the smaller one rounded down."""
    assert page(uptime_seconds=seconds)["daemon"] == f"pid 42, up {shown}, /jobs/b"


@pytest.mark.parametrize(
    ("number", "shown"), [(999, "999 B"), (1000, "1 kB"), (2.5e12, "2.5 TB"), (2.5e15, "2.5e+03 TB")]
)
def test_bytes_have_their_unit(number: float, shown: str) -> None:
    """Powers of 1000, three figures."""
    assert page(memory={"resident": number})["memory"] == f"resident {shown}"
