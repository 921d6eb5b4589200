"""`ampd`: run a training job as a daemon, check its job file, list what is installed.

Nothing but click is imported to print `--help`; torch is never imported here, only in the worker that `start` starts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ampd.cli.command_line import Commands, assignments, say

_EXIT_CODES = """
    \b
    Exit codes:
      0 ok: completed, or stopped and saved
      1 failed: the run, or the worker more often than restart.max_restarts
      2 usage or configuration: nothing was started
      6 conflict: another daemon has the job
      130 interrupted before the state was saved
"""


def _documented(command: Callable[..., Any]) -> Callable[..., Any]:
    command.__doc__ = (command.__doc__ or "").rstrip() + "\n" + _EXIT_CODES
    return command


_config = click.option(
    "--config",
    "path",
    required=True,
    metavar="JOB.toml",
    type=click.Path(path_type=Path),
    help="The job file.",
)
_set = click.option(
    "--set",
    "words",
    multiple=True,
    metavar="KEY=VALUE",
    help="Use this value instead of the job file's; repeatable.",
)


@click.group(
    cls=Commands, program="ampd", interrupted="interrupted before the job began",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
@click.version_option(package_name="ampd")
@_documented
def cli() -> None:
    """Run long mixed-precision trainings that can be watched and changed while they run.

    \b
    Examples:
      ampd check --config job.toml
      ampd start --config job.toml
      ampctl status                  (in another terminal)
    """


@cli.command()
@_config
@click.option(
    "--fresh",
    is_flag=True,
    help="Start over: what earlier runs left is moved to DIRECTORY/old, never deleted.",
)
@_set
@click.pass_obj
@_documented
def start(worker_command: Sequence[str] | None, path: Path, fresh: bool, words: tuple[str, ...]) -> int:
    """Run a job in the foreground, going on where it was stopped.

    Ctrl-C, SIGTERM and `ampctl stop` save, then end it; a second Ctrl-C does not wait for the checkpoint. SIGHUP
    reads the job file again and applies its live keys.

    \b
    Examples:
      ampd start --config job.toml
      ampd start --config job.toml --fresh
      ampd start --config job.toml --set amp.dtype=float16 --set http.listen=127.0.0.1:0
    """
    from ampd import preflight
    from ampd.child import Started
    from ampd.daemon import WORKER_COMMAND, Daemon

    def read() -> preflight.Plan:
        return preflight.plan(preflight.read(path, assignments(words)))

    job = Daemon(
        read().config,
        reread=lambda: read().config,
        is_fresh=fresh,
        workers=Started(worker_command or WORKER_COMMAND),
    )
    ended = job.run()
    return cli.complain(ended.message, ended.hint, ended.code) if ended.message else ended.code


@cli.command()
@_config
@_set
@_documented
def check(path: Path, words: tuple[str, ...]) -> None:
    """Validate all of a job file, options of plugins too, and show what it would run. Starts nothing.

    \b
    Examples:
      ampd check --config job.toml
      ampd check --config job.toml --set batch.size=64
    """
    from ampd import preflight

    job = preflight.plan(preflight.read(path, assignments(words)))
    for name, fact in preflight.facts(job):
        say(f"{name:<12} {fact}")
    say(f"{path}: ok")


@cli.command()
@click.option("--parent", required=True, type=int, metavar="PID", help="The program that is served.")
@_documented
def attach(parent: int) -> int:
    """Serve a program that trains in its own loop; `PerformanceOptimizer.serve()` starts this.

    Reads a configuration as JSON on standard input, writes where it serves as one line of JSON, and ends with the
    program.

    \b
    Example, in Python:
      optimizer = ampd.create_performance_optimizer()
      optimizer.serve(name="notebook")        (then: ampctl status, in a terminal)
    """
    from ampd.attach import run

    return run(parent, sys.stdin.buffer, sys.stdout.buffer)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of objects.")
@_documented
def plugins(as_json: bool) -> None:
    """List the stages and workloads that are installed; a job file names those that it uses.

    \b
    Examples:
      ampd plugins
      ampd plugins --json | jq -r '.[].name'
    """
    import msgspec

    from ampd.cli.plugin_table import installed, table

    rows = installed()
    say(msgspec.json.encode(rows).decode() if as_json else table(rows))


def main() -> None:
    """The console script."""
    cli()


if __name__ == "__main__":
    main()
