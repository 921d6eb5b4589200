"""`ampctl list` and `ampctl hello`: which daemons there are, and what one of them speaks and takes.

`list` asks every daemon of this machine at once and waits for none longer than a moment: a socket that nobody listens
on is not shown, a daemon that does not answer is, with the pid that it left in its lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ampd.cli.command_line import say
from ampd.cli.ctl_call import Call, answer, pass_call
from ampd.cli.ctl_options import as_json_option

if TYPE_CHECKING:
    from ampd.control.endpoints import Endpoint
    from ampd.core.protocol import Done

_PATIENCE_SECONDS = 1.0
_AT_ONCE = 16


@click.command()
@as_json_option
@pass_call
def hello(call: Call, as_json: bool) -> None:
    """Show what the daemon speaks and takes.

    Versions, operations with their roles, and the schema of the live keys, which is JSON Schema: with
    --json it is there whole.

    \b
    Examples:
      ampctl hello
      ampctl hello --json | jq .result.live_keys
    """
    from ampd.core.protocol import Hello

    answer(call.ask(Hello(), seconds=10), _page, as_json=as_json)


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of objects.")
@click.option(
    "--file-sd",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write their /metrics addresses as a target file for Prometheus.",
)
def list_(as_json: bool, file_sd: Path | None) -> None:
    """List the daemons of this machine.

    As far as this user may look; one that does not answer is "silent".

    With --file-sd the addresses that answer are written to a file for Prometheus's file_sd_configs, in one
    rename, so that it is never read half written. Run it from a timer: jobs come and go.

    \b
    Examples:
      ampctl list
      ampctl list --json | jq -r '.[].endpoint'
      ampctl list --file-sd /etc/prometheus/ampd.json
    """
    import msgspec

    from ampd.cli.ctl_pages import in_columns
    from ampd.control import endpoints

    found = endpoints.running()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        rows = list(pool.map(_look, found))
    if file_sd is not None:
        _write(file_sd, msgspec.json.encode(_targets(rows)))
    if as_json:
        say(msgspec.json.encode(rows).decode())
        return
    lines = [("JOB", "STATE", "WINDOW", "PID", "ENDPOINT")]
    lines += [(r["name"], r["state"], _known(r["window"]), _known(r["pid"]), r["endpoint"]) for r in rows]
    say("\n".join(in_columns(lines)) if rows else "no daemon is running")


def _look(found: Endpoint) -> dict[str, Any]:
    """One row; `state` is "silent" where nobody answers."""
    from ampd.control.client import Client
    from ampd.control.endpoints import holder
    from ampd.core.protocol import Status
    from ampd.errors import CommandError

    row: dict[str, Any] = {
        "name": found.job,
        "state": "silent",
        "window": None,
        "pid": holder(found.path),
        "http": "",
    }
    try:
        told = Client(found.address).ask(Status(), _PATIENCE_SECONDS).result
    except CommandError as error:
        return row | {"endpoint": found.address, "error": str(error)}
    return {name: told[name] for name in row} | {"endpoint": found.address, "error": ""}


def _targets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A group for each job that answers; its name is a label that Prometheus drops unless a relabelling keeps it."""
    return [
        {"targets": [row["http"]], "labels": {"__meta_ampd_job": row["name"]}} for row in rows if row["http"]
    ]


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_bytes(content + b"\n")
        beside.replace(path)
    except OSError as error:
        raise click.BadParameter(
            f"{path} cannot be written: {error.strerror}; give a file in a directory that you may write to",
            param_hint="--file-sd",
        ) from None


def _known(value: object) -> str:
    return "-" if value is None else str(value)


def _page(done: Done) -> str:
    from ampd.cli.ctl_pages import in_columns

    r = done.result
    by_role: dict[str, list[str]] = {}
    for operation, about in r["operations"].items():
        by_role.setdefault(about["role"], []).append(operation)
    rows = [
        ("ampd", f"{r['version']}, protocol {r['protocol']}"),
        ("job", f"{r['name']}, pid {r['pid']}, boot {r['boot']}"),
        *((f"may {role}", " ".join(sorted(names))) for role, names in by_role.items()),
        ("live keys", f"{len(r['live_keys'].get('properties', {}))}; their schema: ampctl hello --json"),
    ]
    return "\n".join(in_columns(rows))
