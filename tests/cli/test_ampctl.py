"""`ampctl` against a real control server: what is asked, what is printed, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest
from click.testing import CliRunner, Result

from ampd import __version__
from ampd.cli.ampctl import cli
from ampd.core import protocol
from ampd.core.change import PRESETS
from ampd.core.protocol import Code, Done, Refusal, Reply, Request
from ampd.errors import ExitCode
from tests.cli.conftest import Serve
from tests.control.served import BOOT, DEADLINE_SECONDS, Served, done

MOVED = {"key": "amp.dtype", "old": "float16", "new": "bfloat16"}
RESULTS: dict[type[protocol.Command], dict[str, Any]] = {
    protocol.Status: {"name": "bytegpt", "state": "running"},
    protocol.Get: {"values": {"amp.dtype": "auto"}, "keys": {}},
    protocol.Set: {"changes": [MOVED], "dry_run": False, "trial": None},
    protocol.Preset: {"changes": [MOVED], "dry_run": False, "trial": None},
    protocol.Stats: {"job": {"windows": 9}, "span": {"windows": 4}, "scale": {}, "loss": {}},
    protocol.Reset: {"what": "stats"},
    protocol.Checkpoint: {"path": "/c/7", "bytes": 2_000_000, "seconds": 0.25},
    protocol.Pause: {"state": "paused"},
    protocol.Resume: {"state": "running"},
    protocol.Stop: {"state": "stopped", "saved": True},
    protocol.Inject: {"fault": "overflow", "windows": 3},
    protocol.History: {"revisions": []},
    protocol.Diff: {"old": 1, "new": 2, "changes": [MOVED]},
    protocol.Rollback: {"changes": [MOVED], "dry_run": False, "trial": None},
    protocol.Overlay: {"changes": []},
    protocol.DropOverlay: {"changes": [MOVED], "dry_run": False, "trial": None},
    protocol.Confirm: {"kept": 2},
    protocol.Cancel: {"changes": [MOVED], "dry_run": False, "trial": None},
    protocol.Events: {"events": [], "last": 0},
    protocol.Hello: {
        "protocol": 1,
        "version": "0",
        "boot": "b",
        "name": "n",
        "pid": 1,
        "operations": {},
        "live_keys": {},
    },
}


OPERATION_OF = {"overlay show": "overlay", "overlay drop": "overlay-drop"}
"""Where the words of ampctl are not the operation's own."""
HERE_ALONE = {"list", "overlay", "explain", "keys", "keys new", "keys allow", "keys remove", "keys list"}
"""Words of ampctl that ask no daemon for an operation of their name: groups, files, and what looks at all daemons."""


def script(request: Request) -> Done:
    """A daemon that does everything, at window 184."""
    return done(request, RESULTS[type(request.command)], revision=2, window=184)


def ampctl(*arguments: str, **kwargs: Any) -> Result:
    return CliRunner().invoke(cli, arguments, **kwargs)


def asked(served: Served) -> protocol.AnyCommand:
    """The command that reached the daemon."""
    return served.requests.get(timeout=DEADLINE_SECONDS)[1].command


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("status", protocol.Status()),
        ("get", protocol.Get()),
        ("get dtype optim.lr", protocol.Get(keys=("dtype", "optim.lr"))),
        ("set dtype=float16", protocol.Set(changes={"dtype": "float16"})),
        ("set a=1 b=x=y --dry-run", protocol.Set(changes={"a": "1", "b": "x=y"}, dry_run=True)),
        ("set a= --if-revision 3 -m why", protocol.Set(changes={"a": ""}, if_revision=3, reason="why")),
        (
            "set a=1 --trial 200 --guard nonfinite==0 --guard loss<2x",
            protocol.Set(changes={"a": "1"}, trial=200, guards=("nonfinite==0", "loss<2x")),
        ),
        ("set a=1 --trial 9 --no-wait", protocol.Set(changes={"a": "1"}, trial=9, wait=False)),
        ("preset ultra --trial 5", protocol.Preset(name="ultra", trial=5)),
        ("confirm -m fine", protocol.Confirm(reason="fine")),
        ("cancel --yes -m bad", protocol.Cancel(reason="bad")),
        ("preset ultra --dry-run", protocol.Preset(name="ultra", dry_run=True)),
        ("stats", protocol.Stats()),
        ("reset", protocol.Reset(what="stats")),
        ("reset fallback-budget", protocol.Reset(what="fallback-budget")),
        ("checkpoint", protocol.Checkpoint()),
        ("pause", protocol.Pause()),
        ("resume", protocol.Resume()),
        ("stop", protocol.Stop(save=True)),
        ("stop --no-save --yes", protocol.Stop(save=False)),
        ("inject nan-loss --windows 4", protocol.Inject(fault="nan-loss", windows=4)),
        ("inject oom --rank 1", protocol.Inject(fault="oom", rank=1)),
        ("history", protocol.History()),
        ("history -n 5", protocol.History(last=5)),
        ("diff", protocol.Diff()),
        ("diff 3", protocol.Diff(old=3)),
        ("diff 3 5", protocol.Diff(old=3, new=5)),
        ("rollback", protocol.Rollback()),
        ("rollback 3 --dry-run", protocol.Rollback(revision=3, dry_run=True)),
        ("rollback --if-revision 4 -m why", protocol.Rollback(if_revision=4, reason="why")),
        ("overlay show", protocol.Overlay()),
        ("overlay drop -m why --yes", protocol.DropOverlay(reason="why")),
    ],
)
def test_a_command_line_is_one_command(line: str, command: protocol.AnyCommand, serve: Serve) -> None:
    """What is typed is what the daemon is asked, and it ends with 0."""
    served = serve(script)

    result = ampctl(*line.split())

    assert (result.exit_code, result.stderr) == (0, "")
    assert asked(served) == command


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("set dtype=bfloat16", "revision 2 applied at window 184: amp.dtype float16 -> bfloat16"),
        ("preset ultra", "revision 2 applied at window 184: amp.dtype float16 -> bfloat16"),
        ("reset", "reset stats at window 184"),
        ("checkpoint", "saved window 184 to /c/7 (2 MB in 0.25 s)"),
        ("pause", "paused at window 184"),
        ("resume", "running at window 184"),
        ("stop", "stopped at window 184, saved"),
        ("history", "nothing was changed: revision 1, the job file, holds"),
        ("diff", "the job file -> revision 2: 1 differ\n  amp.dtype float16 -> bfloat16"),
        ("rollback", "revision 2 applied at window 184: amp.dtype float16 -> bfloat16"),
        ("overlay show", "no live change: every key is as the job file has it"),
        ("overlay drop", "revision 2 applied at window 184: amp.dtype float16 -> bfloat16"),
        ("confirm", "confirmed at window 184: revision 2 stays"),
        ("cancel", "revision 2 applied at window 184: amp.dtype float16 -> bfloat16"),
        ("inject overflow --windows 3", "overflow in the next 3 windows, from window 184"),
        ("get dtype", "amp.dtype  =  auto    fixed"),
    ],
)
def test_an_answer_is_one_line(line: str, printed: str, serve: Serve) -> None:
    """What took effect is said in one line, with the window."""
    serve(script)

    assert ampctl(*line.split()).stdout == f"{printed}\n"


@pytest.mark.parametrize("line", ["status", "get", "set a=1", "preset ultra", "stats", "reset", "checkpoint", "pause",
                                  "resume", "stop", "inject overflow", "history", "diff", "rollback", "overlay show",
                                  "overlay drop", "confirm", "cancel"])  # fmt: skip
def test_json_is_the_whole_answer(line: str, serve: Serve) -> None:
    """--json gives id, revision, window and result, and nothing else."""
    served = serve(script)

    printed = json.loads(ampctl(*line.split(), "--json").stdout)

    _, request = served.requests.get(timeout=DEADLINE_SECONDS)
    result = RESULTS[type(request.command)]
    assert printed == {"id": request.id, "revision": 2, "window": 184, "result": result}


def test_every_command_of_the_protocol_has_a_verb() -> None:
    """The protocol's operations and ampctl's commands are the same words."""
    operations = {kind.__struct_config__.tag for kind in get_args(protocol.AnyCommand)}

    groups = {name: command for name, command in cli.commands.items() if isinstance(command, click.Group)}
    words = set(cli.commands) | {
        f"{name} {word}" for name, group in groups.items() for word in group.commands
    }

    assert {OPERATION_OF.get(word, word) for word in words - HERE_ALONE} == operations


@pytest.mark.parametrize(
    ("verb", "parameter", "struct", "field"),
    [("reset", "what", protocol.Reset, "what"), ("inject", "fault", protocol.Inject, "fault")],
)
def test_choices_are_those_of_the_protocol(verb: str, parameter: str, struct: type, field: str) -> None:
    """Words written out for a fast --help are the protocol's own."""
    option = next(p for p in cli.commands[verb].params if p.name == parameter)

    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == get_args(get_type_hints(struct)[field])


def test_presets_are_named_in_the_help() -> None:
    """The help of `preset` names every preset."""
    text = ampctl("preset", "--help").stdout

    assert all(name in text for name in PRESETS)


@pytest.mark.parametrize("verb", [None, *cli.commands])
def test_every_help_has_an_example(verb: str | None) -> None:
    """Each --help ends well and shows how the command is used."""
    result = ampctl(*([verb] if verb else []), "--help")

    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +ampctl {verb or 'status'}", result.stdout)


@pytest.mark.parametrize("code", [code for code in ExitCode if code is not ExitCode.OK])
def test_exit_codes_are_in_the_help(code: ExitCode) -> None:
    """The top help lists every exit code."""
    assert re.search(rf"\b{code.value}\b +\w", ampctl("--help").stdout)


def test_no_daemon_is_exit_3(runtime: Path) -> None:
    """One message, one hint, on stderr; nothing on stdout."""
    result = ampctl("status")

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.splitlines()[0] == "ampctl: no daemon is running"
    assert result.stderr.splitlines()[1].startswith("  hint: ")


def test_several_daemons_need_a_choice(serve: Serve) -> None:
    """Two daemons are named, and --job or --endpoint picks one."""
    serve(script, "one")
    two = serve(script, "two")

    undecided = ampctl("status")
    by_job, by_endpoint = ampctl("--job", "two", "status"), ampctl("--endpoint", two.endpoint, "status")

    assert undecided.exit_code == ExitCode.USAGE
    assert "one, two" in undecided.stderr
    assert (by_job.exit_code, by_endpoint.exit_code, two.requests.qsize()) == (0, 0, 2)


@pytest.mark.parametrize(
    ("code", "exit_code"), [(Code.CONFLICT, 6), (Code.FORBIDDEN, 4), (Code.IMMUTABLE, 5)]
)
def test_a_refusal_is_told_with_its_code(code: Code, exit_code: int, serve: Serve) -> None:
    """The daemon's words and hint, and the exit code of the cause."""

    def refuse(request: Request) -> Reply:
        return Refusal(
            id=request.id, boot=BOOT, code=code, message="revision is 4, not 3", hint="read it again"
        )

    serve(refuse)
    result = ampctl("set", "a=1", "--if-revision", "3")

    assert result.exit_code == exit_code
    assert result.stderr == "ampctl: revision is 4, not 3\n  hint: read it again\n"


def test_a_timeout_can_be_asked_again(serve: Serve) -> None:
    """Exit 7 prints the id, and the id given back is the id that is asked with."""
    answers = iter([None, script])
    served = serve(lambda request: (step := next(answers)) and step(request))

    late = ampctl("--timeout", "0.3", "set", "a=1")
    request_id = late.stderr.rpartition("--request-id ")[2].strip()
    again = ampctl("--request-id", request_id, "set", "a=1")

    assert (late.exit_code, again.exit_code) == (7, 0)
    assert [served.requests.get(timeout=DEADLINE_SECONDS)[1].id for _ in range(2)] == [request_id] * 2


def test_an_answer_that_cannot_be_written_is_one_message() -> None:
    """A disk that is full where the output goes: no traceback, and no second one at the interpreter's end."""
    with Path("/dev/full").open("wb") as full:
        told = subprocess.run(
            [sys.executable, "-m", "ampd.cli.ampctl", "explain", "dtype"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )  # fmt: skip

    assert told.returncode == ExitCode.FAILED
    assert told.stderr.startswith(
        "ampctl: the answer cannot be written to standard output: No space left on device\n"
    )
    assert len(told.stderr.splitlines()) == 2


def test_it_says_its_version() -> None:
    """Without a daemon; that of the daemon is in `hello`."""
    assert ampctl("--version").stdout == f"ampctl, version {__version__}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("set dtype", "'dtype' is not KEY=VALUE"),
        ("set =1", "'=1' is not KEY=VALUE"),
        ("set a=1 a=2", "a is given twice"),
        ("set a=\udcff", "'a=\\udcff' is not text in UTF-8"),
        ("set a=1 -m \udcff", "'\\udcff' is not text in UTF-8"),
        ("get \udcff", "'\\udcff' is not text in UTF-8"),
        (
            "--request-id x pause",
            "'x' is no id: expected the one that the hint of the timed out command shows",
        ),
        ("set", "Missing argument"),
        ("stpo", "'stpo' is not a command; did you mean 'stop'"),
        ("reset everything", "'everything' is not one of"),
        ("inject overflow --windows 0", "0 is not in the range"),
        ("inject overflow --rank -1", "-1 is not in the range"),
        ("set a=1 --if-revision x", "'x' is not a valid integer"),
        ("--timeout 0 status", "0.0 is not in the range"),
        ("--endpoint http://h:1 status", "http is not served"),
        ("--endpoint tcp://h --server-key x --key y status", "neither a public key"),
    ],
)
def test_a_wrong_command_line_is_exit_2(line: str, said: str, serve: Serve) -> None:
    """Usage is checked before anything is sent, and the message is ours."""
    served = serve(script)

    result = ampctl(*line.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("ampctl: ")
    assert said in result.stderr
    assert served.requests.empty()


def test_nothing_given_shows_the_help() -> None:
    """Without a command the help is printed, as an error."""
    result = ampctl()

    assert result.exit_code == 2
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("typed", "exit_code", "is_asked"),
    [(b"n\n", 1, False), (b"y\n", 0, True), (b"", 130, False)],
    ids=["no", "yes", "^C"],
)
@pytest.mark.usefixtures("_interruptible")
def test_a_terminal_is_asked_before_the_end(
    typed: bytes, exit_code: int, is_asked: bool, serve: Serve
) -> None:
    """On a terminal `stop` asks first; a no, and Ctrl-C, send nothing."""
    served = serve(script)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ampd.cli.ampctl", "stop"]

    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        assert asking.stderr is not None
        question = b""
        while not question.endswith(b"]: "):
            question += asking.stderr.read(1)
        os.write(ours, typed)
        while asking.poll() is None:  # a SIGINT that comes just before Python's read is seen only after it
            if not typed:
                asking.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                asking.wait(timeout=1)
    os.close(ours)
    os.close(theirs)

    assert b"Save and end this job?" in question
    assert (asking.returncode, not served.requests.empty()) == (exit_code, is_asked)


def test_a_reader_that_leaves_is_no_error(serve: Serve) -> None:
    """`ampctl status | head -0` ends in silence."""
    serve(script)
    reads, writes = os.pipe()
    os.close(reads)

    ended = subprocess.run(
        [sys.executable, "-m", "ampd.cli.ampctl", "status"],
        stdout=writes,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writes)

    assert ended.stderr == b""


def test_help_loads_nothing_heavy() -> None:
    """--help needs neither ZeroMQ nor the protocol, and status needs no torch, rich or asyncio."""
    code = """
import sys
from click.testing import CliRunner
from ampd.cli.ampctl import cli
CliRunner().invoke(cli, ["set", "--help"])
print([name for name in ("zmq", "msgspec", "ampd.core.protocol") if name in sys.modules])
CliRunner().invoke(cli, ["--endpoint", "/nowhere", "status"])
print([name for name in ("torch", "rich", "ampd.control.server", "numpy") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.split("\n")[:2] == ["[]", "[]"]
