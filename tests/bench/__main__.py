"""Runs the benchmark and writes RESULTS.md beside this file; see the package for how it measures."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ampd.engine.device import keep_freed_memory
from tests.bench import fallbacks, racer, recovery, report
from tests.bench.daemons import run_race
from tests.bench.tasks import TASKS

RESULTS = Path(__file__).with_name("RESULTS.md")
DTYPES = ("bfloat16", "float16")
NOTES = """
`ampd` is a real `ampd start`: fallback armed, statistics, clipping, losses.jsonl, telemetry to a supervisor that is scraped and
asked for its status each second; no checkpoint falls into the race. `by hand` is autocast, backward, clip_grad_norm_,
fused AdamW and loss.item(), in float16 with GradScaler's unscale_, step and update; `by hand, again` is the same loop
once more, and shows the noise. All ratios are medians ± standard error [quartiles] over rounds, each by the hand-written loop of
the same round; within a round each loop has two turns.
The peers have no float16 on a CPU: Lightning Fabric takes bfloat16 instead, Accelerate refuses. Where no gradient needs
clipping, ampd does not multiply by 1, which is why it can be faster than the loop that it is compared with.
"""


def main() -> None:
    """All parts, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=["steps", "fallbacks", "recovery"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    sections = list(_sections(arguments.only, arguments.tasks, arguments.dtypes))
    head = [
        "# Benchmark",
        report.circumstances(shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]]), load),
        NOTES.strip(),
    ]
    text = "\n\n".join([*head, *sections]) + "\n"
    arguments.out.write_text(text)
    print(text)


def _sections(only: str | None, tasks: list[str], dtypes: list[str]) -> Iterator[str]:
    if only in (None, "steps"):
        rows = [
            row
            for task in tasks
            for dtype in dtypes
            for row in report.race_rows(task, dtype, run_race(task, dtype))
        ]
        yield f"## A step\n\n{report.table(report.RACE_HEADER, rows)}"
    torch.set_num_threads(1)
    keep_freed_memory()  # as the worker does; for all loops alike
    racer.pin()
    if only in (None, "fallbacks"):
        yield f"## A window that falls back\n\n{report.table(fallbacks.HEADER, fallbacks.rows())}"
    if only in (None, "recovery"):
        title = f"## Time to a loss of {recovery.TARGET}, with 1 window in {recovery.BAD_EVERY} bad"
        yield f"{title}\n\n{report.table(recovery.HEADER, recovery.rows())}"


if __name__ == "__main__":
    main()
