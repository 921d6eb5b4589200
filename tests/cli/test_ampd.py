"""`ampd` as it is typed: every mistake is one message with what to do, an exit code, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ampd.cli.ampd import cli

GOOD = """
[job]
name = "toy"
directory = "{home}/run"
windows = 10
[workload]
name = "digits"
[http]
listen = "127.0.0.1:0"
"""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a short path, which holds the sockets too."""
    with tempfile.TemporaryDirectory(prefix="ampd-") as directory:
        monkeypatch.setenv("AMPD_RUNTIME_DIR", f"{directory}/rt")
        (Path(directory) / "job.toml").write_text(GOOD.format(home=directory))
        yield Path(directory)


def _ampd(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def _left(home: Path) -> set[str]:
    return {entry.name for entry in home.iterdir()} - {"job.toml"}


BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "broken TOML": ("[job", "is not TOML"),
    "not text": (b"\xff\xfe", "is not text in UTF-8"),
    "unknown key": (GOOD + "[amp]\ndtyp = 'float16'", "'amp.dtyp' is not a key; did you mean 'amp.dtype'?"),
    "unknown table": (GOOD + "[amq]\nx = 1", "'amq' is not a key"),
    "wrong type": (GOOD + "[batch]\nsize = 'big'", "batch.size = 'big': expected `int`, got `str`"),
    "out of range": (GOOD + "[batch]\nsize = 0", "batch.size = 0: expected `int` >= 1"),
    "not a choice": (GOOD + "[amp]\ndtype = 'fp16'", "expected one of auto, float16, bfloat16, float32"),
    "rule between keys": (GOOD + "[amp]\nmin_scale = 4.0\nmax_scale = 2.0", "amp.min_scale = 4 is above"),
    "missing section": ("[workload]\nname = 'digits'", "job.toml: [job] is missing"),
    "unknown workload": (GOOD.replace("digits", "digitz"), "workload 'digitz' is not installed; did you mean 'digits'?"),
    "unknown stage": (GOOD + "[pipeline]\nstages = ['clipp']", "stage 'clipp' is not installed"),
    "unknown option": (GOOD + "[workload.options]\ncolour = 1", "workload.options.colour is not an option"),
    "slot without stage": (GOOD + "[pipeline]\nstages = ['clip']", "slot RECOVER takes exactly one stage"),
    "bad name": (GOOD.replace('"toy"', '"To y"'), "job.name = 'To y'"),
    "bad port": (GOOD.replace("127.0.0.1:0", "127.0.0.1:65536"), "http.listen = '127.0.0.1:65536': expected a port from 0 to 65535"),
    "bad address": (GOOD.replace("127.0.0.1:0", "nowhere"), "http.listen = 'nowhere': expected HOST:PORT"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["start", "check"])
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_job_file_starts_nothing(home: Path, command: str, name: str) -> None:
    """One message with the key, exit 2, no traceback, not a file made."""
    text, message = BAD_FILES[name]
    content = text if isinstance(text, bytes) else text.replace("{home}", str(home)).encode()
    (home / "job.toml").write_bytes(content)

    result = _ampd(command, "--config", str(home / "job.toml"))

    assert result.exit_code == 2, result.stderr
    assert result.stderr.startswith("ampd: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not _left(home)


@pytest.mark.parametrize("command", ["start", "check"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "{home}/none.toml"], "cannot read the job file {home}/none.toml: No such file or directory"),
        (["--config", "{home}"], "Is a directory"),
        ([], "Missing option '--config'"),
        (["--config", "{home}/job.toml", "--set", "dtype"], "'dtype' is not KEY=VALUE"),
        (["--config", "{home}/job.toml", "--set", "a=1", "--set", "a=2"], "a is given twice, as '1' and '2'"),
        (["--config", "{home}/job.toml", "--set", "amp.dtype=fp16"], "--set: amp.dtype = 'fp16': expected one of auto, float16"),
        (["--config", "{home}/job.toml", "--set", "amp.dtyp=float16"], "did you mean 'amp.dtype'"),
        (["--config", "{home}/job.toml", "--wat"], "No such option"),
    ],
)  # fmt: skip
def test_bad_words_start_nothing(home: Path, command: str, words: list[str], message: str) -> None:
    """What was given, what was expected, what to do."""
    result = _ampd(command, *(word.replace("{home}", str(home)) for word in words))

    assert result.exit_code == 2
    assert message.replace("{home}", str(home)) in result.stderr
    assert "hint: " in result.stderr
    assert not _left(home)


def test_a_socket_path_that_is_too_long(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by name and length, with the variable to set."""
    monkeypatch.setenv("AMPD_RUNTIME_DIR", f"{home}/{'x' * 100}")

    result = _ampd("start", "--config", str(home / "job.toml"))

    assert result.exit_code == 2
    assert "a unix socket takes at most 107" in result.stderr
    assert "AMPD_RUNTIME_DIR" in result.stderr
    assert not _left(home)


def test_an_unusable_directory(home: Path) -> None:
    """A file where the job's directory should be."""
    (home / "run").write_text("a file")

    result = _ampd("start", "--config", str(home / "job.toml"))

    assert result.exit_code == 2
    assert f"job.directory = '{home}/run' cannot be used" in result.stderr
    assert (home / "run").read_text() == "a file"


def test_check_shows_what_it_would_run(home: Path) -> None:
    """One fact a line, and nothing is started or written."""
    result = _ampd("check", "--config", str(home / "job.toml"), "--set", "amp.dtype=float16")

    assert result.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert facts["precision"] == "float16"
    assert facts["workload"].startswith("digits: ")
    assert "autocast (CAST)" in facts["pipeline"]
    assert not _left(home)


def test_a_job_file_of_another_editor_is_read(home: Path) -> None:
    """The mark that editors of Windows begin a file with, and their line ends, are no mistake."""
    text = (home / "job.toml").read_text()
    (home / "job.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())

    result = _ampd("check", "--config", str(home / "job.toml"))

    assert (result.exit_code, result.stderr) == (0, "")


def test_plugins_lists_the_built_in_stages() -> None:
    """Name, slot, and the distribution that it comes from."""
    lines = _ampd("plugins").stdout.splitlines()

    assert lines[0].split() == ["NAME", "KIND", "FROM", "SUMMARY"]
    autocast = next(line for line in lines if line.startswith("autocast"))
    assert "stage CAST" in autocast
    assert "ampd " in autocast


def test_plugins_as_json() -> None:
    """For programs: the same rows as objects."""
    rows = {row["name"]: row for row in json.loads(_ampd("plugins", "--json").stdout)}

    assert rows["fallback"]["kind"] == "stage RECOVER"
    assert rows["digits"]["kind"] == "workload"
    assert all(row["version"] and row["summary"] and not row["error"] for row in rows.values())


def test_bytes_that_are_no_text_start_nothing(home: Path) -> None:
    """A word that a shell has made of another encoding is shown, and no traceback of an encoder."""
    result = _ampd("check", "--config", str(home / "job.toml"), "--set", "job.name=\udcff")

    assert result.exit_code == 2
    assert "'job.name=\\udcff' is not text in UTF-8" in result.stderr


@pytest.mark.parametrize("words", [[], ["start"], ["check"], ["plugins"]])
def test_help_has_examples_and_exit_codes(words: list[str]) -> None:
    """Of every command, without anything else being looked at."""
    result = _ampd(*words, "--help")

    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert "Exit codes:" in result.stdout
    assert "130 interrupted" in result.stdout


@pytest.mark.parametrize("words", [["--help"], ["plugins"], ["check", "--config", "job.toml"]])
def test_torch_is_never_loaded(home: Path, words: list[str]) -> None:
    """Not by any command but the worker that `start` starts."""
    code = f"import sys; from ampd.cli.ampd import cli\ntry: cli({words!r})\nfinally: print('torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, capture_output=True, text=True, env=os.environ, check=True
    )

    assert done.stdout.endswith("False\n")


def test_an_unknown_command_is_a_usage_error() -> None:
    """With the nearest, and where to look."""
    result = _ampd("strat")

    assert result.exit_code == 2
    assert result.stderr == "ampd: 'strat' is not a command; did you mean 'start'?\n  hint: see ampd --help\n"


def test_without_words_it_shows_what_it_can_do() -> None:
    """The help as it is, and the exit code of a command that was not given."""
    result = _ampd()

    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ampd [OPTIONS] COMMAND")
