"""Who survives kill -9 in the middle of saving, and whose resume in the middle of an epoch is exact.

    .venv/bench/bin/python -m tests.bench.survival          # writes SURVIVAL.md; `--kills 20 --seed 1`

Every saver of `savers`, and a real `ampd start`, trains the same transformer and saves after every step. It is killed at a
moment of a save, drawn from a seeded generator over the time that saves took until then. Survived means that the newest
state that its library had called saved (or a newer one) loads by the library's own means, and that another step and
another save follow. Three things can go wrong: nothing loads, an older state loads, or the run does not go on; errors are
counted by their first line.

What dies is the process, not the machine: what the kernel has, it still writes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.bench import report
from tests.bench.savers import SAVERS
from tests.bench.victims import END, MIDDLE, PATIENCE_SECONDS, Ampd, Contestant, Peer
from tests.daemon import daemons

RESULTS = Path(__file__).with_name("SURVIVAL.md")
AMPD, ELSEWHERE = "ampd", "Lightning, temporary files elsewhere"
EXACT = {"Hugging Face Trainer", "Lightning", AMPD}
NOTES = """\
All train one transformer over bytes (1.7 million parameters, AdamW: a state of 21 MB) in float32 and save after every step,
each as its documentation does; a kill comes at a random moment of a save. A run has survived where the newest state that its
library had called saved loads by the library's own means, and a further step and save follow. The last column is a run cut
by SIGKILL in the middle of an epoch, with dropout and shuffled data, against one that was never stopped: how many of the
next losses agree to the last bit. Temporary files elsewhere: `TMPDIR` on another file system, which is what a job has whose
checkpoints are on a mount of their own."""
HEADER = [
    "saver",
    "newest state loads and the run goes on",
    "else",
    "losses after a resume that are the same",
]


# Kills.


def kill_once(contestant: Contestant, home: Path, draw: random.Random) -> str:
    """What became of one kill: empty for survived."""
    victim, took = contestant.begin(home), []
    victim.saved()
    for _ in range(draw.randint(2, 4)):
        victim.begins()
        begun = time.monotonic()
        victim.saved()
        took.append(time.monotonic() - begun)
    victim.begins()
    time.sleep(draw.uniform(0.0, statistics.median(took)))
    last = victim.kill()
    try:
        found = contestant.go_on(home)
    except (RuntimeError, AssertionError) as error:
        return f"{error}"
    return "" if found >= last else "an older state was loaded, without an error"


@contextmanager
def place(root: Path) -> Iterator[Path]:
    """A directory with a short path, for sockets."""
    home = Path(tempfile.mkdtemp(prefix="ampd-", dir=root))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def contestant_of(name: str) -> Contestant:
    """By the name of its row; loads its library."""
    torch.set_num_threads(1)
    return Ampd() if name == AMPD else Peer(SAVERS[name]())


def run_row(name: str, kills: int, seed: int, root: Path) -> dict[str, Any]:
    """The figures of one row."""
    daemons.PATIENCE_SECONDS = PATIENCE_SECONDS  # for a busy machine
    contestant, draw = contestant_of(name), random.Random(f"{seed}-{name}")
    outcomes: Counter[str] = Counter()
    for number in range(kills):
        with place(root) as home:
            outcome = kill_once(contestant, home, draw)
        outcomes[outcome] += 1
        print(f"{name}: kill {number + 1} of {kills}: {outcome or 'survived'}", file=sys.stderr, flush=True)
    return {"outcomes": outcomes, "exact": exact(contestant, root) if name in EXACT else None}


def exact(contestant: Contestant, root: Path) -> int:
    """How many losses after a resume are those of a run that was never stopped, to the last bit."""
    with place(root) as whole, place(root) as cut:
        pairs = zip(contestant.losses(whole, is_cut=False), contestant.losses(cut, is_cut=True), strict=True)
        return sum(one == other for one, other in pairs)


# The report.


def row_of(name: str, kills: int, seed: int) -> list[str]:
    """The row of one contestant, which has a process of its own."""
    command = [sys.executable, "-m", "tests.bench.survival", "--row", name, "--root", tempfile.gettempdir()]
    environment = os.environ | ({"TMPDIR": "/dev/shm"} if name == ELSEWHERE else {})
    done = subprocess.run(
        [*command, "--kills", str(kills), "--seed", str(seed)], env=environment, stdout=subprocess.PIPE, check=True
    )  # fmt: skip
    return written(name, kills, json.loads(done.stdout.splitlines()[-1]))


def written(name: str, kills: int, figures: dict[str, Any]) -> list[str]:
    """The cells of a row."""
    outcomes = dict(figures["outcomes"])
    survived = outcomes.pop("", 0)
    troubles = "; ".join(f"{count} x {words}".replace("|", "/") for words, count in sorted(outcomes.items()))
    exact_of = "-" if figures["exact"] is None else f"{figures['exact']} of {END - MIDDLE}"
    return [name, f"{survived} of {kills}", troubles or "-", exact_of]


def page(rows: Sequence[Sequence[str]], command: str, load: float) -> str:
    """SURVIVAL.md."""
    packages = ("torch", "transformers", "accelerate", "pytorch-lightning")
    return "\n\n".join(
        ["# Kills in the middle of saving", report.circumstances(command, load, packages, how="one torch thread"), report.table(HEADER, rows), NOTES]
    )  # fmt: skip


def main() -> None:
    """Run all rows, or one of them as a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.survival")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--row", choices=[*SAVERS, AMPD])
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    if given.row:
        print(json.dumps(run_row(given.row, given.kills, given.seed, given.root)))
        return
    load = os.getloadavg()[0]
    rows = [row_of(name, given.kills, given.seed) for name in (*SAVERS, AMPD)]
    command = f"python -m tests.bench.survival --kills {given.kills} --seed {given.seed}"
    RESULTS.write_text(page(rows, command, load) + "\n")


if __name__ == "__main__":
    main()
