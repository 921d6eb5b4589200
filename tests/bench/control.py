"""What it costs to be asked, and what it takes to be answered: the control plane of a real daemon under load.

A real `ampd start` on the last core, its worker on the first, where it computes windows of a length that is asked for
(`metronome`); the clients share the daemon's core. What a window takes is compared in pairs of neighbouring turns with
and without the load, since a shared machine drifts by more than the load costs.

`python -m tests.bench.control` writes CONTROL.md beside this file, in about five minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path

import msgspec

from ampd.control.client import Client
from ampd.core import protocol as p
from ampd.errors import CommandError
from tests.bench import circusd, report
from tests.bench.load import (
    CLIENTS,
    MALFORMED,
    Crowd,
    Stream,
    answered,
    crowd,
    median,
    milliseconds,
    take_precedence,
)

RESULTS = Path(__file__).with_name("CONTROL.md")
GETS, SETS = 1000.0, 50.0
TURN_SECONDS = 1.5
NOTES = """
Waits run from sending to reading and include the client's own share of the core. A set is answered when it took effect: it
waits for an fsync, for the end of the window under way, and for another fsync. The ratio is of neighbouring turns with and
without the load, by the medians of their windows. A question never reaches the worker; a set is work of the loop at a
boundary and of its link, here on one core with it. A job directory in memory shows what is
left of a set's wait without a disk; it would not survive a power cut.
"""
_JOB = """
[job]
name = "load"
directory = "{home}/run"
windows = 1000000000

[workload]
name = "digits"            # the metronome brings its own

[amp]
dtype = "float32"

[optim]
schedule = "constant"

[checkpoint]
every_windows = 1000000000

[device]
type = "cpu"
threads = 1

[http]
listen = "127.0.0.1:0"
"""


class Job:
    """A running daemon."""

    def __init__(self, home: Path, daemon: subprocess.Popen[bytes]) -> None:
        self.endpoint = f"ipc://{home}/rt/load/control.sock"
        self.home = home
        self.daemon = daemon

    @property
    def worker(self) -> int:
        """The worker's pid."""
        log = (self.home / "log").read_text().splitlines()
        return int(next(msgspec.json.decode(line)["pid"] for line in log if '"worker.started"' in line))

    def windows(self, begin: float, end: float) -> list[float]:
        """Seconds of each window between two moments."""
        text = (self.home / "moments").read_text().splitlines()
        moments = [moment for moment in map(float, text) if begin <= moment <= end]
        return [b - a for a, b in pairwise(moments)]

    def processor_seconds(self) -> float:
        """What the supervisor has computed so far."""
        fields = Path(f"/proc/{self.daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self) -> None:
        """Wait until the windows have the length that was asked for."""
        deadline = time.monotonic() + 60
        while not (self.home / "moments").exists() or len((self.home / "moments").read_bytes()) < 50:
            assert time.monotonic() < deadline and self.daemon.poll() is None, (self.home / "log").read_text()
            time.sleep(0.1)
        time.sleep(1.0)


@contextmanager
def job(window_seconds: float, base: Path, *metronome: str) -> Iterator[Job]:
    """A daemon on the last core, whose windows take so long; `metronome` are words for the worker."""
    with tempfile.TemporaryDirectory(prefix="ampd-", dir=base) as directory:
        home = Path(directory)
        (home / "job.toml").write_text(_JOB.format(home=home))
        worker = [
            *(sys.executable, "-m", "tests.bench.metronome"),
            *("--seconds", str(window_seconds), "--moments", str(home / "moments"), *metronome),
        ]
        command = [
            *(sys.executable, "-m", "tests.daemon.start", shlex.join(worker)),
            *("start", "--config", str(home / "job.toml")),
        ]
        environment = os.environ | {"AMPD_RUNTIME_DIR": str(home / "rt")}
        with (home / "log").open("wb") as log:
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            running = Job(home, daemon)
            running.settle()
            yield running
        finally:
            _end(running)


def _end(running: Job) -> None:
    try:
        Client(running.endpoint).ask(p.Stop(save=False), 10.0)
        running.daemon.wait(20)
    except (CommandError, subprocess.TimeoutExpired):
        running.daemon.kill()
        running.daemon.wait()


def _is_done(reply: dict[str, object]) -> bool:
    return reply["type"] == "done"


def gets(rate: float = GETS) -> Stream:
    """Questions for one key."""
    return Stream(rate, lambda i: _request(i, p.Get(keys=("optim.lr",))), _is_done)


def statuses(rate: float = GETS) -> Stream:
    """Questions for the whole status."""
    return Stream(rate, lambda i: _request(i, p.Status()), _is_done)


def sets(rate: float = SETS) -> Stream:
    """Changes of the learning rate, each to another value."""
    draw = random.Random(1)
    return Stream(
        rate, lambda i: _request(i, p.Set(changes={"optim.lr": f"{draw.uniform(1e-4, 1e-3):.9f}"})), _is_done
    )


def _request(request_id: str, command: p.AnyCommand) -> bytes:
    return msgspec.json.encode(p.Request(v=p.VERSION, id=request_id, command=command))


def cost_rows(running: Job, clients: Crowd, pairs: int, asked: Mapping[str, Stream]) -> Iterator[list[str]]:
    """What a window takes with and without the load, and how long the clients waited meanwhile."""
    load = " and ".join(f"{stream.rate:g} {name}s a second" for name, stream in asked.items())
    ratios, quiet, loaded, busy = [], [], [], []
    for number in range(pairs):
        medians = {}
        for is_loaded in (False, True) if number % 2 else (True, False):
            begin, spent = time.monotonic(), running.processor_seconds()
            if is_loaded:
                clients.drive(TURN_SECONDS, asked)
                busy.append((running.processor_seconds() - spent) / (time.monotonic() - begin))
            else:
                time.sleep(TURN_SECONDS)
            medians[is_loaded] = statistics.median(running.windows(begin, begin + TURN_SECONDS))
        quiet.append(medians[False])
        loaded.append(medians[True])
        ratios.append(medians[True] / medians[False])
    yield [f"window without {load}, ms, median", f"{1000 * median(quiet):.3f}"]
    yield [f"window with {load}, ms, median", f"{1000 * median(loaded):.3f}"]
    yield [f"ratio over {pairs} pairs, median [quartiles]", report.spread(ratios, 4)]
    yield [f"the supervisor's share of its core with {load}", f"{median(busy):.0%}"]
    for name, stream in asked.items():
        yield from wait_rows(f"{name}, with {load}", stream)


def wait_rows(name: str, stream: Stream) -> Iterator[list[str]]:
    """How long the clients of a stream waited."""
    waits = stream.waits
    count = f"{len(waits.answered)} answered, {waits.refused} refused, {waits.unanswered} unanswered"
    yield [f"{name}, ms, p50 / p99 / longest ({count})", milliseconds(waits.answered)]


def hung_rows(running: Job, clients: Crowd, seconds: float) -> Iterator[list[str]]:
    """How long questions wait while the step hangs."""
    os.kill(running.worker, signal.SIGSTOP)
    try:
        asked = {"get": gets(), "status": statuses(50.0)}
        clients.drive(seconds, asked)
    finally:
        os.kill(running.worker, signal.SIGCONT)
    for name, stream in asked.items():
        yield from wait_rows(f"{name} at {stream.rate:g}/s while the step hangs", stream)


def applied_rows(running: Job, clients: Crowd, count: int) -> Iterator[list[str]]:
    """From a set to its answer, one at a time at random moments, against the window that it waits for."""
    draw, stream, begin = random.Random(2), sets(), time.monotonic()
    for _ in range(count):
        clients.ask(stream)
        time.sleep(draw.uniform(0.0, 0.05))
    windows = running.windows(begin, time.monotonic())
    yield ["window, ms, p50 / p99 / longest", milliseconds(windows)]
    yield from wait_rows("set to applied, alone", stream)
    over = [wait - median(windows) for wait in stream.waits.answered]
    yield ["the same, less one median window", milliseconds(over)]


def disk_rows(running: Job) -> Iterator[list[str]]:
    """What the disk takes for one fsync; a set waits for two, one before it is sent on and one before its answer."""
    took, path = [], running.home / "fsync"
    with path.open("wb") as file:
        for _ in range(60):
            file.write(b"x" * 300)
            file.flush()
            begin = time.monotonic()
            os.fsync(file.fileno())
            took.append(time.monotonic() - begin)
            time.sleep(0.02)
    yield ["an fsync of 300 bytes, ms, p50 / p99 / longest", milliseconds(took)]


def rate_rows(clients: Crowd) -> Iterator[list[str]]:
    """How many questions are answered where nobody waits between two."""
    for name, stream in (("get", gets()), ("status", statuses())):
        yield [
            f"{name}, {CLIENTS} clients without a pause, answers a second",
            f"{clients.saturate(2.0, stream):.0f}",
        ]


def measure(window_seconds: float, pairs: int, changes: int, hung_seconds: float, base: Path) -> str:
    """All the figures at one length of a window."""
    with job(window_seconds, base) as running, crowd(running.endpoint) as clients:
        clients.drive(1.0, {"get": gets(200.0)})  # the handshakes
        rows = [*disk_rows(running), *applied_rows(running, clients, changes)]
        if pairs:
            rows += cost_rows(running, clients, pairs, {"get": gets()})
            rows += cost_rows(running, clients, pairs, {"get": gets(), "set": sets()})
            rows += rate_rows(clients)
        rows += hung_rows(running, clients, hung_seconds)
        heard = answered(running.endpoint)
        rows.append(["malformed messages answered", f"{len(heard)} of {len(MALFORMED)}"])
    title = f"## Windows of {1000 * window_seconds:g} ms, job directory in {base}"
    return f"{title}\n\n{report.table(['figure', 'value'], rows)}"


def main() -> None:
    """Measure and write down."""
    arguments = _arguments()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    take_precedence()
    load = os.getloadavg()[0]
    sections = list(_sections(arguments))
    head = "\n".join(
        (
            "# The control plane under load",
            "",
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, `{shlex.join(['python', '-m', 'tests.bench.control', *sys.argv[1:]])}`",
            f"- {report.processor()}, {len(cores)} cores; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after",
            f"- {CLIENTS} clients and the daemon on core {cores[-1]}, the worker on core {cores[0]}; nice {os.nice(0)}",
        )
    )
    text = "\n\n".join([head, NOTES.strip(), *sections]) + "\n"
    arguments.out.write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.control", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--hung-seconds", type=float, default=5.0)
    parser.add_argument("--windows", type=float, nargs="*", default=[5.0, 200.0], metavar="MILLISECONDS")
    parser.add_argument(
        "--bases", type=Path, nargs="+", default=[Path(tempfile.gettempdir()), Path("/dev/shm")],
        help="where the job directory is made, for its disk; the pairs are run on the first",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.pairs == 1:
        parser.error("--pairs 1: one pair has no spread; give 0 for none, or 2 and more")
    return arguments


def _sections(arguments: argparse.Namespace) -> Iterator[str]:
    for length, base in product(arguments.windows, arguments.bases):
        is_short = length < 100  # pairs of long windows would take an hour to say the same
        pairs = arguments.pairs if is_short and base == arguments.bases[0] else 0
        changes = arguments.changes if is_short else arguments.changes // 4
        yield measure(length / 1000, pairs, changes, arguments.hung_seconds, base)
    if circusd.program_or_none() is None:
        yield "## circus\n\nNot installed here; `make bench` installs it beside .venv."
    else:
        yield circus(arguments.hung_seconds)


def circus(hung_seconds: float) -> str:
    """The same questions to circus 0.19, which manages processes and trains nothing."""
    with circusd.running() as (endpoint, child), crowd(endpoint) as clients:
        asked = circusd.gets(GETS)
        clients.drive(1.0, {"get": circusd.gets(200.0)})
        clients.drive(10.0, {"get": asked})
        rows = [*wait_rows(f"get at {GETS:g}/s", asked)]
        rate = clients.saturate(2.0, circusd.gets(GETS))
        rows.append([f"get, {CLIENTS} clients without a pause, answers a second", f"{rate:.0f}"])
        os.kill(child, signal.SIGSTOP)
        try:
            hung = circusd.gets(GETS)
            clients.drive(hung_seconds, {"get": hung})
            rows += wait_rows(f"get at {GETS:g}/s while its process hangs", hung)
        finally:
            os.kill(child, signal.SIGCONT)
        heard = answered(endpoint)
        rows.append(["malformed messages answered", f"{len(heard)} of {len(MALFORMED)}"])
    return f"## circus, by the same clients\n\n{report.table(['figure', 'value'], rows)}"


if __name__ == "__main__":
    main()
