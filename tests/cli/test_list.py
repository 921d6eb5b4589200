"""`ampctl list` and `ampctl hello`: who is there, and what it takes; nobody is waited for long."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ampd.cli import ctl_hello
from ampd.cli.ampctl import cli
from ampd.core import protocol
from ampd.core.capabilities import hello, live_schema
from ampd.core.keys import table
from ampd.core.protocol import Done, Request
from tests.cli.conftest import Serve
from tests.control.served import done
from tests.core.bench import job_view


def ampctl(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def running(request: Request) -> Done:
    return done(
        request, {"name": "bytegpt", "state": "running", "window": 184, "pid": 42, "http": "127.0.0.1:9647"}
    )


def test_nobody_is_said(runtime: Path) -> None:
    """No daemon is no error: the list is empty."""
    assert (ampctl("list").exit_code, ampctl("list").stdout) == (0, "no daemon is running\n")
    assert json.loads(ampctl("list", "--json").stdout) == []


def test_every_daemon_is_a_row(serve: Serve) -> None:
    """Name, state, window, pid and endpoint of each."""
    one, two = serve(running, "one"), serve(running, "two")

    rows = json.loads(ampctl("list", "--json").stdout)

    assert [row["endpoint"] for row in rows] == [one.endpoint, two.endpoint]
    assert {(row["name"], row["state"], row["window"], row["pid"]) for row in rows} == {
        ("bytegpt", "running", 184, 42)
    }
    assert ampctl("list").stdout.splitlines()[0].split() == ["JOB", "STATE", "WINDOW", "PID", "ENDPOINT"]


def test_a_stale_socket_is_no_daemon(runtime: Path) -> None:
    """A killed daemon leaves its socket behind; nobody listens on it."""
    (runtime / "dead").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime / "dead" / "control.sock"))

    assert json.loads(ampctl("list", "--json").stdout) == []


def test_a_daemon_that_does_not_answer_is_silent(
    runtime: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for a moment only, named with the pid from its lock, and does not hide the others."""
    monkeypatch.setattr(ctl_hello, "_PATIENCE_SECONDS", 0.2)
    serve(running, "good")
    serve(lambda _: None, "hung")
    (runtime / "mute").mkdir()
    (runtime / "mute" / "lock").write_text("77\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime / "mute" / "control.sock"))
        listener.listen()

        rows = {row["name"]: row for row in json.loads(ampctl("list", "--json").stdout)}

    assert {name: row["state"] for name, row in rows.items()} == {
        "bytegpt": "running", "hung": "silent", "mute": "silent",
    }  # fmt: skip
    assert rows["mute"]["pid"] == 77
    assert "no answer within" in rows["hung"]["error"]


def test_the_jobs_that_answer_are_targets(tmp_path: Path, serve: Serve) -> None:
    """For Prometheus's file_sd_configs: an address for each, no file left beside it, and the list is printed as ever."""
    serve(running, "good")
    serve(lambda _: None, "hung")

    result = ampctl("list", "--file-sd", str(tmp_path / "ampd.json"))

    assert json.loads((tmp_path / "ampd.json").read_text()) == [
        {"targets": ["127.0.0.1:9647"], "labels": {"__meta_ampd_job": "bytegpt"}}
    ]
    assert [path.name for path in tmp_path.glob("ampd*")] == ["ampd.json"]
    assert "hung" in result.stdout


def test_no_job_is_a_file_without_targets(tmp_path: Path, runtime: Path) -> None:
    """The job that ended is taken out of Prometheus, and not left there for ever."""
    ampctl("list", "--file-sd", str(tmp_path / "ampd.json"))

    assert json.loads((tmp_path / "ampd.json").read_text()) == []


def test_a_target_file_that_cannot_be_written_is_said(tmp_path: Path, runtime: Path) -> None:
    """Exit 2 with the path and the reason; no traceback."""
    result = ampctl("list", "--file-sd", str(tmp_path / "nowhere" / "ampd.json"))

    assert result.exit_code == 2
    assert "nowhere/ampd.json cannot be written: No such file or directory" in result.stderr


def test_hello_names_operations_by_role(serve: Serve) -> None:
    """Versions, boot, and what each role may do."""
    serve(lambda request: done(request, hello(job_view())))

    page = ampctl("hello").stdout

    assert "protocol 1" in page
    assert "may admin" in page
    assert "overlay-drop rollback stop" in page


def test_hello_has_every_operation() -> None:
    """With the role that it needs, as the door checks it."""
    operations = hello(job_view())["operations"]

    assert {name: about["role"] for name, about in operations.items()} == {
        str(kind.__struct_config__.tag): role.name.lower() for kind, role in protocol.ROLE_OF.items()
    }


def test_the_schema_has_every_live_key() -> None:
    """With its bounds, its words, its unit and its default; no fixed key is in it."""
    schema = live_schema()

    assert set(schema["properties"]) == {path for path, key in table().items() if key.live}
    assert schema["properties"]["amp.dtype"]["enum"] == ["auto", "bfloat16", "float16", "float32"]
    assert schema["properties"]["checkpoint.every_windows"] | {"description": ""} == {
        "type": "integer", "minimum": 1, "default": 500, "x-unit": "windows", "description": "",
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted(path for path, key in table().items() if key.live))
def test_every_live_key_is_described(path: str) -> None:
    """In words, and by a type or a choice of them."""
    described = live_schema()["properties"][path]

    assert described["description"]
    assert {"type", "enum", "anyOf"} & set(described)
