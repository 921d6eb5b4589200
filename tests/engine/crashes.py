"""What a disk may hold after a crash: the operations before it, less what was never synced.

A process that is killed loses nothing that the kernel took. A machine that loses power may lose the content of a file
that was not fsynced since it was written (all of it, half, or it is there as zeros), and each entry of a directory that was
not fsynced since: the last ones as on a journaled file system, or any one alone as on a lesser one. Files and
directories are told apart from their names here, as inodes are, so that a rename can last where the creation before it
did not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from tests.engine.operations import Operation

Loss = Literal["none", "empty", "half", "zeros"]
LOSSES: tuple[Loss, ...] = ("none", "empty", "half", "zeros")
Tree = dict[str, bytes | None]
"""What is there, by path; None is a directory."""


@dataclass(eq=False)
class Node:
    """A file (`now`, and what of it `lasts`) or a directory (`entries`)."""

    is_directory: bool
    entries: dict[str, Node] = field(default_factory=dict)
    now: bytes = b""
    lasts: bytes = b""

    def after(self, loss: Loss) -> bytes:
        """What is left of a file."""
        lost = self.now[len(self.lasts) :]
        match loss:
            case "none":
                return self.now
            case "empty":
                return self.lasts
            case "half":
                return self.lasts + lost[: len(lost) // 2]
            case "zeros":
                return self.lasts + bytes(len(lost))


@dataclass(frozen=True, eq=False)
class Change:
    """What one operation did to the entries of a directory; None removes a name."""

    directory: Node
    names: tuple[tuple[str, Node | None], ...]


class Machine:
    """A file system in memory that knows what it was promised to keep."""

    def __init__(self) -> None:
        self._root = Node(is_directory=True)
        self._changes: list[tuple[Change, bool]] = []  # and whether it lasts

    def do(self, operation: Operation) -> None:
        """Carry out one operation."""
        match operation.kind:
            case "create" | "mkdir":
                self._change(operation.path, Node(is_directory=operation.kind == "mkdir"))
            case "unlink" | "rmdir":
                self._change(operation.path, None)
            case "rename":
                moved, other = self._at(operation.path), PurePosixPath(operation.other).name
                self._change(operation.path, None, (other, moved))
            case "write":
                self._at(operation.path).now += operation.content
            case "truncate":
                node = self._at(operation.path)
                node.now, node.lasts = node.now[: operation.size], node.lasts[: operation.size]
            case "fsync":
                self._sync(self._at(operation.path))

    def trees(self) -> Iterator[tuple[str, Tree]]:
        """Each state that a crash now may leave, and in words what was lost."""
        for lost in self._losable():
            for loss in LOSSES:
                yield f"entries lost: {sorted(lost)}, content: {loss}", self._tree(lost, loss)

    def _losable(self) -> Iterator[frozenset[int]]:
        """Sets of changes that may be lost: none, the last so many, or one of the last few alone."""
        unsettled = [number for number, (_change, lasts) in enumerate(self._changes) if not lasts]
        ends = [frozenset(unsettled[first:]) for first in range(len(unsettled), -1, -1)]
        alone = [frozenset({number}) for number in unsettled[-8:]]
        yield from dict.fromkeys([*ends, *alone])

    def _tree(self, lost: frozenset[int], loss: Loss) -> Tree:
        entries: dict[Node, dict[str, Node]] = {}
        for number, (change, _lasts) in enumerate(self._changes):
            if number not in lost:
                names = entries.setdefault(change.directory, {})
                for name, node in change.names:
                    names.pop(name, None) if node is None else names.update({name: node})
        return dict(_walk(self._root, "", entries, loss))

    def _change(self, path: str, node: Node | None, *more: tuple[str, Node | None]) -> None:
        where = PurePosixPath(path)
        directory = self._at(str(where.parent))
        change = Change(directory, ((where.name, node), *more))
        for name, entry in change.names:
            directory.entries.pop(name, None) if entry is None else directory.entries.update({name: entry})
        self._changes.append((change, False))

    def _sync(self, node: Node) -> None:
        node.lasts = node.now
        self._changes = [(change, lasts or change.directory is node) for change, lasts in self._changes]

    def _at(self, path: str) -> Node:
        node = self._root
        for name in PurePosixPath(path).parts:
            node = node.entries[name]
        return node


def _walk(
    node: Node, prefix: str, entries: dict[Node, dict[str, Node]], loss: Loss
) -> Iterator[tuple[str, bytes | None]]:
    for name, child in entries.get(node, {}).items():
        path = prefix + name
        yield path, None if child.is_directory else child.after(loss)
        yield from _walk(child, path + "/", entries, loss)


def states(log: Sequence[Operation]) -> Iterator[tuple[int, str, Tree]]:
    """Every state after every prefix of a log, each different one once for a prefix: how many operations, what was lost, what is there."""
    machine = Machine()
    for done in itertools.count():
        seen: list[Tree] = []
        for words, tree in machine.trees():
            if tree not in seen:
                seen.append(tree)
                yield done, words, tree
        if done == len(log):
            return
        machine.do(log[done])


def build(tree: Tree, place: Path) -> None:
    """Make a state real."""
    place.mkdir()
    for path, content in tree.items():
        if content is None:
            (place / path).mkdir()
        else:
            (place / path).write_bytes(content)
