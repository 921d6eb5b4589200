"""The journal's file is rewritten shorter: killed at any step, and with any of the steps refused by the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.control import records as r
from ampd.control.journal_file import JournalFile, encode
from ampd.control.records import Account
from ampd.errors import CheckpointError
from tests.control.histories import accepted, applied, histories, said

STEPS = ("open", "pwrite", "fsync", "replace", "unlink")
"""The calls that a rewrite makes to change the disk; the last one cleans up, which the dead do not."""


class Killed(BaseException):
    """The process is gone: nothing after this happens."""


@contextmanager
def on_step(react: Callable[[str], None]) -> Iterator[None]:
    """Call `react` before each step; a write is done by half before it."""
    real = {name: getattr(os, name) for name in STEPS}

    def patched(name: str) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if name == "pwrite":
                file, text, at = arguments
                real[name](file, text[: len(text) // 2], at)
            react(name)
            return real[name](*arguments, **options)

        return step

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, patched(name))
        yield


def written(path: Path, records: list[r.Record], slack: int = 10**6) -> JournalFile:
    """A journal with some records."""
    journal, _account = JournalFile.open(path, slack)
    if records:
        journal.append([encode(record) for record in records])
    return journal


def read(path: Path) -> Account:
    """The journal as the next start finds it."""
    journal, account = JournalFile.open(path, 10**6)
    journal.close()
    return account


def count_steps(records: list[r.Record]) -> int:
    """How many steps a rewrite of some records takes."""
    steps = list[str]()
    with TemporaryDirectory() as home:
        journal = written(Path(home) / "journal", records)
        with on_step(steps.append):
            journal.compact()
        journal.close()
    return len(steps)


@given(histories(), histories(most=5), st.data())
def test_a_kill_at_any_step_loses_nothing(
    before: list[r.Record], after: list[r.Record], data: st.DataObject
) -> None:
    """Whatever the journal and wherever it was cut off: the same schedule, revisions, promises and answers."""
    left = data.draw(st.integers(0, count_steps(before) - 1), label="steps before the kill")
    with TemporaryDirectory() as home:
        path = Path(home) / "journal"
        journal = written(path, before)

        def kill(_name: str) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1

        with on_step(kill), pytest.raises(Killed):
            journal.compact()
        assert said(read(path), before) == said(Account(before), before)

        written(path, after).close()
        everything = before + after
        assert said(read(path), everything) == said(Account(everything), everything)
        assert [entry.name for entry in path.parent.iterdir()] == ["journal"]


@given(histories(), histories(most=5), st.data())
def test_a_step_that_the_disk_refuses_loses_nothing(
    before: list[r.Record], after: list[r.Record], data: st.DataObject
) -> None:
    """The rewrite is given up; the daemon that runs goes on appending, and the next start finds all of it."""
    refused = data.draw(st.integers(0, count_steps(before) - 1), label="the step that is refused")
    with TemporaryDirectory() as home:
        path = Path(home) / "journal"
        journal = written(path, before)
        steps = list[str]()

        def refuse(name: str) -> None:
            steps.append(name)
            if len(steps) == refused + 1:
                raise OSError(errno.EIO, "Input/output error")

        with on_step(refuse):
            journal.compact()
        journal.append([encode(record) for record in after] or [b""])
        journal.close()

        everything = before + after
        assert said(read(path), everything) == said(Account(everything), everything)


def test_a_rewrite_is_on_disk_before_it_takes_the_place(tmp_path: Path) -> None:
    """Content, then fsync, then the name, then fsync of the directory: a power cut meets the old file or the new."""
    journal, steps = written(tmp_path / "journal", [accepted("r1"), applied("r1", 1)]), list[str]()

    with on_step(steps.append):
        journal.compact()
    journal.close()

    assert steps == ["open", "pwrite", "fsync", "replace", "open", "fsync"]


def test_no_line_is_promised_in_a_file_that_a_power_cut_may_undo(tmp_path: Path) -> None:
    """The directory could not be synced after the rename: that is done before the next line, or the line is refused."""
    journal = written(tmp_path / "journal", [accepted("r1"), applied("r1", 1)])
    names = list[str]()

    def refuse_directory(name: str) -> None:
        names.append(name)
        if names[-2:] == ["open", "fsync"]:  # of the directory: the file's own fsync follows a write
            raise OSError(errno.EIO, "Input/output error")

    with on_step(refuse_directory):
        journal.compact()
        with pytest.raises(CheckpointError, match="cannot write to the journal"):
            journal.append([encode(accepted("r2"))])
    with on_step(names.append):
        journal.append([encode(accepted("r3"))])
    journal.close()

    assert names[-4:] == ["open", "fsync", "pwrite", "fsync"]
    assert [act.request_id for act in read(tmp_path / "journal").pending()] == ["r3"]


def test_a_journal_that_grows_is_kept_short(tmp_path: Path) -> None:
    """Thousands of changes leave about a line for each, and no more than the slack beside it."""
    journal, _account = JournalFile.open(tmp_path / "journal", slack=20)
    for seq in range(1, 301):
        journal.append([encode(accepted(f"r{seq}")), encode(applied(f"r{seq}", seq))])
        if journal.is_bloated:
            journal.compact()
    journal.close()

    lines = (tmp_path / "journal").read_bytes().count(b"\n")
    assert 300 <= lines <= 300 + 150 + 20
    assert len(read(tmp_path / "journal").applied()) == 300


def test_a_long_journal_is_shortened_at_the_start(tmp_path: Path) -> None:
    """Runs that were too short to do it leave it to the next."""
    path = tmp_path / "journal"
    written(path, [accepted("r1") for _ in range(30)]).close()

    journal, account = JournalFile.open(path, slack=20)
    journal.close()

    assert path.read_bytes() == encode(accepted("r1"))
    assert len(account) == 1
    assert path.stat().st_mode & 0o777 == 0o600


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "changed": lambda content: content.replace(b'"r2"', b'"r2 '),
    "cut": lambda content: content[: content.index(b"\n") + 1],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_never_copied(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that changed under the daemon is left as it is, and the log says so."""
    path = tmp_path / "journal"
    journal = written(path, [accepted("r1"), accepted("r2"), accepted("r3")])
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)

    journal.compact()
    journal.close()

    assert path.read_bytes() == damaged
    assert "journal.not_compacted" in caplog.text
