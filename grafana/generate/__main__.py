"""`python -m grafana.generate`: write the generated files, or say which of them are stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana.generate import outputs
from grafana.generate.pace import Pace


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 where all is written or fresh, 1 where `--check` found stale files."""
    options = _parser().parse_args(arguments)
    pace = Pace(options.time_scale)
    if options.check:
        stale = outputs.stale(options.out, pace, options.runbooks)
        sys.stderr.writelines(
            f"{options.out / name} is stale; run `python -m grafana.generate`\n" for name in stale
        )
        return 1 if stale else 0
    for path in outputs.write(options.out, pace, options.runbooks):
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=outputs.HOME, help="directory to write below (default: grafana/)"
    )
    parser.add_argument(
        "--time-scale",
        type=_scale,
        default=1.0,
        metavar="N",
        help="make every duration of the rules N times shorter; rules only",
    )
    parser.add_argument(
        "--runbooks",
        default=outputs.RUNBOOKS,
        metavar="URL",
        help="where alerts find their runbooks (default: %(default)s)",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where a file is not up to date"
    )
    return parser


def _scale(text: str) -> float:
    scale = float(text)
    if not 0 < scale <= 600:
        raise argparse.ArgumentTypeError(f"{text}: a time scale is above 0 and at most 600")
    return scale


if __name__ == "__main__":
    sys.exit(main())
