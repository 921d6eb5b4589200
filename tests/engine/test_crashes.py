"""A crash at any file operation of a save: the newest complete checkpoint loads, and the loss log fits it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ampd.core import messages as m
from ampd.engine import checkpoint, disk
from ampd.engine.retention import Keep
from ampd.engine.writer import SaveTask, Writer
from tests.engine.crashes import Tree, build, states
from tests.engine.operations import Operations
from tests.engine.test_writer import row

KEEP = 2
LAYOUTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "one file": lambda n: {"model": {"w": torch.full((3,), float(n))}, "window": n},
    "several files": lambda n: {"model": {"w": torch.full((3,), n)}, "stages": {"s": torch.zeros(1)}, "window": n},
    "no tensors": lambda n: {"text": "x" * 200, "window": n},
}  # fmt: skip


class Recording:
    """A writer that made checkpoints 1 to `saves`, each with its rows before it; what it did, and when each was promised."""

    def __init__(self, home: Path, layout: Callable[[int], dict[str, Any]], saves: int = 4) -> None:
        home.mkdir()
        self.promised: dict[int, int] = {}
        self.operations = Operations(home)
        writer = Writer(home / "run", self._take)
        with self.operations.seen():
            writer.start(0)
            for window in range(1, saves + 1):
                writer.rows([row(window)])
                state = layout(window) | {"position": {"row_bytes": writer.row_bytes}}
                writer.save(
                    SaveTask(window=window, seq=0, state=state, keep=Keep(last=KEEP), stall_seconds=0.0)
                )
                writer.wait()
            writer.close()
        self.rows = (home / "run" / "losses.jsonl").read_bytes()

    def _take(self, report: m.Report) -> None:
        assert isinstance(report, m.Saved), report
        self.promised[report.window] = len(self.operations.log)

    def check(self, done: int, run: Path) -> None:
        """The laws of what is found in `run` after a crash at operation `done`."""
        told: list[str] = []
        promised = [window for window, at in self.promised.items() if at <= done]
        found = checkpoint.newest(run / "checkpoints", lambda path, why: told.append(why))
        assert told == [], "something that is not whole was visible"
        visible = [checkpoint.verify(path).window for path in checkpoint.listed(run / "checkpoints")]
        assert len(visible) >= min(KEEP, len(promised))
        if found is None:
            assert promised == []
            return
        path, manifest = found
        state = checkpoint.load(path, manifest)
        assert state["window"] == manifest.window >= max(promised, default=0)
        length = state["position"]["row_bytes"]
        assert (run / "losses.jsonl").read_bytes()[:length] == self.rows[:length]


def violations(recording: Recording, place: Path) -> Iterator[str]:
    """What is wrong after which crash; states that were looked at under the same promises are not looked at again."""
    seen: set[tuple[int, int]] = set()
    for done, words, tree in states(recording.operations.log):
        promises = sum(at <= done for at in recording.promised.values())
        key = (promises, hash(frozenset(tree.items())))
        if key in seen or "run" not in tree:
            continue
        seen.add(key)
        yield from _violation(recording, done, words, tree, place / str(len(seen)))


def _violation(recording: Recording, done: int, words: str, tree: Tree, place: Path) -> Iterator[str]:
    build(tree, place)
    try:
        recording.check(done, place / "run")
    except Exception as error:  # noqa: BLE001  # whatever a crash brings about is what is looked for
        before = recording.operations.log[done - 1]
        yield f"after operation {done} ({before.kind} {before.path}), {words}: {error!r}"
    shutil.rmtree(place)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_crash_at_any_operation_leaves_the_newest_complete_checkpoint(tmp_path: Path, layout: str) -> None:
    """Killed or without power, at each operation of four saves and their prunings."""
    recording = Recording(tmp_path / "home", LAYOUTS[layout])
    assert len(recording.promised) == 4

    assert list(violations(recording, tmp_path)) == []


SABOTAGE: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "directories are not synced": lambda patch: patch.setattr(disk, "sync", lambda _path: None),
    "nothing is synced": lambda patch: patch.setattr(Operations, "_fsync", lambda _self, _descriptor: None),
    "a new directory is not made to last": lambda patch: patch.setattr(
        disk, "make_directory", lambda path: path.mkdir(parents=True, exist_ok=True)
    ),
    "a name is not made to last": lambda patch: patch.setattr(disk, "publish", os.rename),
    "deleted in sight": lambda patch: patch.setattr(disk, "remove", shutil.rmtree),
}


@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_the_search_finds_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sabotage: str
) -> None:
    """Without the syncs, some crash breaks a law; so that none does means something."""
    SABOTAGE[sabotage](monkeypatch)
    recording = Recording(tmp_path / "home", LAYOUTS["one file"], saves=3)

    assert next(violations(recording, tmp_path), None) is not None
