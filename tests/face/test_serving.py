"""A program's own loop with a real attached daemon: ampctl, /metrics, and the ends of both."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ampd import AMPConfig, PerformanceOptimizer
from ampd.errors import ConfigError, JobConflictError
from ampd.optimizer.serving import Serving
from tests.face import loops
from tests.tree import ROOT

AMPCTL = Path(sys.executable).with_name("ampctl")
PATIENCE_SECONDS = 60.0  # far above what anything here takes on a busy machine


class Program:
    """A loop that goes on training while `ampctl` is at work."""

    def __init__(self) -> None:
        self.subject: PerformanceOptimizer = loops.face()
        self.model = loops.model()
        self.optimizer = loops.ADAMW(self.model)
        self.serving: Serving = self.subject.serve(name="program", listen="127.0.0.1:0")

    def step(self) -> Any:
        """One step; returns its result."""
        return loops.train(self.subject, self.model, self.optimizer, loops.batches(1))[0]

    def ampctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What a command answers while the program trains."""
        with subprocess.Popen(
            [AMPCTL, "--endpoint", self.serving.endpoint, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as asked:  # fmt: skip
            until(lambda: self.step() and asked.poll() is not None)
            out, err = asked.communicate()
        return subprocess.CompletedProcess(words, asked.returncode, out, err)

    def metrics(self) -> str:
        """The page as Prometheus gets it."""
        with urllib.request.urlopen(f"http://{self.serving.http}/metrics", timeout=PATIENCE_SECONDS) as page:
            text: str = page.read().decode()
        return text


def until(is_true: Callable[[], Any]) -> None:
    """Ask again and again, and fail when it takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether there is no such process any more; one that nobody has reaped yet is gone too."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A runtime directory of this test alone."""
    monkeypatch.setenv("AMPD_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def program(runtime: Path) -> Iterator[Program]:
    """A program that is served."""
    subject = Program()
    yield subject
    subject.serving.close()


def test_set_changes_the_precision_between_two_steps(program: Program) -> None:
    """The answer comes after the change took effect, and says what it did."""
    assert program.step()["precision"] == "float32"

    done = program.ampctl("set", "dtype=bfloat16")

    assert done.returncode == 0, done.stderr
    assert "amp.dtype float32 -> bfloat16" in done.stdout
    assert program.step()["precision"] == "bfloat16"
    assert program.subject.get_optimization_status()["revision"] == 2


@pytest.mark.parametrize(
    ("guard", "code", "precision"),
    [("nonfinite==0", 0, "bfloat16"), ("loss<0", 8, "float32")],
    ids=["confirmed", "reverted"],
)
def test_a_trial_ends_in_the_programs_own_loop(
    program: Program, guard: str, code: int, precision: str
) -> None:
    """It counts the program's windows, and answers with what came of it: kept, or undone before the next step."""
    program.step()

    done = program.ampctl("set", "dtype=bfloat16", "--trial", "5", "--guard", guard)

    assert done.returncode == code, done.stderr
    assert program.step()["precision"] == precision
    assert program.ampctl("confirm").returncode != 0  # nothing is on trial any more


@pytest.mark.parametrize(("word", "precision"), [("confirm", "bfloat16"), ("cancel", "float32")])
def test_a_trial_of_a_program_can_be_ended_early(program: Program, word: str, precision: str) -> None:
    """Long before its windows are over, at the next step."""
    program.step()
    begun = program.ampctl(
        "set", "dtype=bfloat16", "--trial", "100000", "--guard", "nonfinite==0", "--no-wait"
    )
    assert begun.returncode == 0, begun.stderr
    assert program.step()["precision"] == "bfloat16"

    assert program.ampctl(word).returncode == 0

    assert program.step()["precision"] == precision


def test_metrics_are_those_of_the_loop(program: Program) -> None:
    """A page that Prometheus can scrape, of the same ledger."""
    until(lambda: program.step() and "\nampd_windows_total 0" not in program.metrics())

    (line,) = [
        line for line in program.metrics().splitlines() if line.startswith("ampd_windows_applied_total")
    ]
    steps = program.subject.get_amp_stats()["total_steps"]
    assert steps is not None
    assert 0 < float(line.split()[-1]) <= steps


def test_the_time_within_a_step_is_told_too(program: Program) -> None:
    """The loop brings its data itself; the passes and the optimizer are the engine's."""
    until(lambda: program.step() and "\nampd_windows_sampled_total 0" not in program.metrics())

    spent = {
        line.split()[0]: float(line.split()[-1])
        for line in program.metrics().splitlines()
        if line.startswith("ampd_sampled_window_seconds_total{")
    }

    assert sorted(name for name, seconds in spent.items() if seconds > 0) == [
        f'ampd_sampled_window_seconds_total{{activity="{a}"}}'
        for a in ("backward", "data", "forward", "optimizer", "other")
    ]


def test_status_get_stats_and_reset(program: Program) -> None:
    """What an operator looks at, and clears."""
    until(lambda: "running" in program.ampctl("status").stdout)
    until(lambda: "windows" in program.ampctl("stats").stdout)

    assert program.ampctl("reset", "stats").returncode == 0
    steps = program.subject.get_amp_stats()["total_steps"]
    assert steps is not None
    assert 0 < steps < program.subject.training_optimizer.get_gradient_accumulation_status()["windows"]


def test_the_programs_own_changes_are_seen_outside(program: Program) -> None:
    """They are revisions as any other, made at the same boundaries."""
    program.step()
    assert program.ampctl("set", "dtype=bfloat16").returncode == 0

    program.subject.update_amp_config(AMPConfig(dtype="float16"))

    done = program.ampctl("set", "dtype=float32", "--if-revision", "2")
    assert (done.returncode, "revision 3 holds" in done.stderr) == (6, True)
    assert "float16" in program.ampctl("get", "amp.dtype").stdout


@pytest.mark.parametrize(
    "words", [["stop"], ["checkpoint"], ["pause"], ["resume"]], ids=lambda words: words[0]
)
def test_what_is_the_programs_own_is_refused(program: Program, words: list[str]) -> None:
    """With the reason: the daemon is attached, and the loop is not its own."""
    done = program.ampctl(*words)

    assert done.returncode != 0
    assert "only attached to it" in done.stderr
    assert program.step()["applied"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("optim.lr=0.5", "belongs to the loop that the training runs in"),
        ("amp.on_bad_window=pause", "holds nobody"),
        ("amp.init_scale=2", "fixed while the job runs"),
        ("amp.dtype=int8", "expected one of auto, float16"),
    ],
)
def test_changes_that_mean_nothing_here_are_refused(program: Program, word: str, reason: str) -> None:
    """Nothing is silently ignored."""
    done = program.ampctl("set", word)

    assert done.returncode != 0
    assert reason in done.stderr


def test_closing_ends_the_daemon_and_not_the_loop(program: Program) -> None:
    """The program goes on, and may be served again under the same name."""
    pid = program.serving.pid
    program.step()

    program.serving.close()
    program.serving.close()

    assert is_gone(pid)
    assert program.step()["applied"]
    program.serving = program.subject.serve(name="program", listen="127.0.0.1:0")
    until(lambda: "running" in program.ampctl("status").stdout)


def test_serving_again_replaces_the_daemon(program: Program) -> None:
    """A notebook cell that is run twice must not end in a conflict with itself."""
    first = program.serving.pid

    program.serving = program.subject.serve(name="program", listen="127.0.0.1:0")

    assert is_gone(first)
    assert program.step()["applied"]


def test_a_daemon_that_dies_costs_the_loop_nothing(
    program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once; steps go on."""
    program.step()
    os.kill(program.serving.pid, signal.SIGKILL)

    with caplog.at_level(logging.WARNING, "ampd"):
        until(lambda: program.step() and "daemon.died" in caplog.text)
        program.step()

    assert caplog.text.count("daemon.died") == 1


def test_sigterm_ends_the_daemon_alone(program: Program) -> None:
    """An operator may end it by hand; the program is not asked to stop."""
    program.step()
    os.kill(program.serving.pid, signal.SIGTERM)

    until(lambda: is_gone(program.serving.pid))
    assert program.step()["applied"]


def test_a_name_that_is_taken_is_refused(program: Program) -> None:
    """With the daemon that has it; nothing is left running."""
    with pytest.raises(JobConflictError, match="program"):
        loops.face().serve(name="program", listen="127.0.0.1:0")


@pytest.mark.parametrize(
    ("name", "listen", "field"), [("My Job", "127.0.0.1:0", "job.name"), ("fine", "nowhere", "http.listen")]
)
def test_wrong_arguments_are_refused(runtime: Path, name: str, listen: str, field: str) -> None:
    """Before a process is started."""
    with pytest.raises(ConfigError) as refused:
        loops.face().serve(name=name, listen=listen)
    assert refused.value.field == field


def test_an_address_that_is_taken_is_refused(program: Program) -> None:
    """What the daemon found is raised here, with its field."""
    with pytest.raises(ConfigError) as refused:
        loops.face().serve(name="other", listen=program.serving.http)
    assert refused.value.field == "http.listen"


@contextlib.contextmanager
def running(runtime: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program in a process of its own, and the pid of its daemon."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.face.programs", "rough"], cwd=ROOT, text=True,
        env=os.environ | {"AMPD_RUNTIME_DIR": str(runtime)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("way", ["end", "raise", "kill"])
def test_the_daemon_ends_with_the_program(runtime: Path, way: str) -> None:
    """However that ends: by itself, by an exception, by SIGKILL."""
    with running(runtime) as (process, daemon):
        assert not is_gone(daemon)

        if way == "kill":
            process.kill()
            process.wait()
        else:
            process.communicate(f"{way}\n", timeout=PATIENCE_SECONDS)

        until(lambda: is_gone(daemon))
        assert not list((runtime / "rough").glob("*.sock"))
