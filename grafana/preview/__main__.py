"""`python -m grafana.preview`: draw the four dashboards from real answers, and say which panels had nothing to show."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from grafana.generate.outputs import HOME, dashboards
from grafana.preview.answers import Server
from grafana.preview.sheet import draw

PICTURES = HOME / "pictures"
FLEET = "ampd-fleet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; the report goes to standard output, a picture for each dashboard to `--out`."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with _server(options) as server:
        for dashboard in dashboards():
            sheet = draw(dashboard, server if dashboard["uid"] != FLEET else server.of_all())
            path = options.out / f"{dashboard['uid']}.svg"
            path.write_text(sheet.svg, encoding="utf-8")
            print(f"{path}: {len(sheet.svg) / 1000:.0f} kB; without data: {', '.join(sheet.empty) or 'none'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m grafana.preview", description=__doc__)
    parser.add_argument(
        "--prometheus",
        metavar="URL",
        help="draw what this server has; without it, two jobs are rehearsed (3 minutes)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        help="how far back to look at --prometheus (default: %(default)s)",
    )
    parser.add_argument(
        "--scrape", type=float, default=15.0, help="its scrape interval in seconds (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=PICTURES, help="directory of the pictures (default: grafana/pictures)"
    )
    return parser


@contextlib.contextmanager
def _server(options: argparse.Namespace) -> Iterator[Server]:
    if options.prometheus:
        now = time.time()
        yield Server(options.prometheus.rstrip("/"), now - 60 * options.minutes, now, options.scrape)
        return
    # The rehearsal needs the tests' tools, which an installation that only draws does not have.
    from grafana.preview.rehearsal import rehearse

    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        yield from rehearse(Path(home), options.out)


if __name__ == "__main__":
    sys.exit(main())
