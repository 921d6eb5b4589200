"""Runs the campaigns; prints how many cases each ran, and the line that repeats a failure."""

from __future__ import annotations

import argparse
import inspect
import random
import time
import traceback
from collections.abc import Sequence
from types import ModuleType

from tests.campaigns import (
    clocks,
    compare_and_set,
    corruptions,
    decoder_fuzz,
    engine_faults,
    events,
    exactly_once,
    hangs,
    kills,
    never_hangs,
    nodes,
    reloads,
    signals,
    soak,
    trials,
    two_daemons,
    wire_fuzz,
)  # fmt: skip

CAMPAIGNS: tuple[ModuleType, ...] = (
    engine_faults, corruptions, decoder_fuzz, kills, exactly_once, compare_and_set, two_daemons, events,
    hangs, never_hangs, wire_fuzz, signals, reloads, trials, nodes, clocks, soak,
)  # fmt: skip


def run(
    campaign: ModuleType, seeds: random.Random, *, seconds: float, cases: int | None, size: Sequence[int] = ()
) -> int:
    """Run cases until the time or their number is up; returns how many."""
    deadline, done = time.monotonic() + seconds, 0
    while time.monotonic() < deadline and (cases is None or done < cases):
        seed = seeds.randrange(2**32)
        try:
            campaign.case(seed, *size)
        except Exception:  # noqa: BLE001  # whatever a case raises is its failure, told with the line that repeats it
            traceback.print_exc()
            sized = "".join(f" --size {number}" for number in size)
            print(
                f"{campaign.NAME}: FAILED; repeat with:"
                f" python -m tests.campaigns --only {campaign.NAME} --case {seed}{sized}"
            )
            raise SystemExit(1) from None
        done += 1
    return done


def main() -> None:
    """Share the time among the campaigns."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", choices=[campaign.NAME for campaign in CAMPAIGNS])
    parser.add_argument("--cases", type=int, help="stop after so many cases")
    parser.add_argument("--case", type=int, help="run the one case of this seed")
    parser.add_argument(
        "--size",
        type=int,
        help="of a case, with --only: kills, corruptions, requests, races, inputs, seconds",
    )
    arguments = parser.parse_args()
    chosen = [c for c in CAMPAIGNS if arguments.only in (None, c.NAME)]
    size = [arguments.size] if arguments.size is not None else []
    if size and not (arguments.only and len(inspect.signature(chosen[0].case).parameters) > 1):
        parser.error("--size needs --only with a campaign whose cases have a size")
    if arguments.case is not None:
        chosen[0].case(arguments.case, *size)
        print(f"{chosen[0].NAME}: case {arguments.case} passed")
        return
    print(f"campaigns: seed {arguments.seed}, {arguments.seconds:g} s in all")
    for campaign in chosen:
        start = time.monotonic()
        share = arguments.seconds / len(chosen)
        seeds = random.Random(arguments.seed)
        done = run(campaign, seeds, seconds=share, cases=arguments.cases, size=size)
        print(f"{campaign.NAME}: {done} cases in {time.monotonic() - start:.0f} s, 0 failed", flush=True)


if __name__ == "__main__":
    main()
