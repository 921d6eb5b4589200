"""`ampd start` with another worker: `python -m tests.daemon.start 'WORKER COMMAND' start --config JOB.toml ...`."""

from __future__ import annotations

import shlex
import sys

from ampd.cli.ampd import cli

if __name__ == "__main__":
    cli(args=sys.argv[2:], obj=shlex.split(sys.argv[1]))
