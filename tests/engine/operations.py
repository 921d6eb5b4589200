"""Every change of the files under a directory, as it is asked of the kernel: recorded, and made to fail at will."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Operation:
    """One call: `create`, `write`, `truncate`, `fsync`, `mkdir`, `rename`, `unlink` or `rmdir`; paths are below the root."""

    kind: str
    path: str
    other: str = ""
    content: bytes = b""
    size: int = 0


Fault = Callable[[int, Operation], int | None]
"""Given the number of an operation: an `errno` to fail with, 0 to write only a half of it, or None."""


class Operations:
    """The log of what was done below `root`."""

    def __init__(self, root: Path, fault: Fault = lambda _number, _operation: None) -> None:
        self.root = root.resolve()
        self.log: list[Operation] = []
        self._fault = fault
        self._real = {name: getattr(os, name) for name in _PATCHED}

    @contextmanager
    def seen(self) -> Iterator[Operations]:
        """A scope in which operations are recorded, and fail where they are to."""
        with mock.patch.multiple(os, **{name: getattr(self, f"_{name}") for name in _PATCHED}):
            yield self

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = self._below(path, dir_fd)
        if where is not None and flags & os.O_CREAT and not (self.root / where).exists():
            self._note(Operation("create", where))
        descriptor: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        return descriptor

    def _write(self, descriptor: int, content: Any) -> int:
        where = self._of(descriptor)
        if where is not None:
            given = bytes(content)
            if self._note(Operation("write", where, content=given), keep=False) == 0:
                given = given[: max(1, len(given) // 2)]
            self.log.append(Operation("write", where, content=given))
            content = given
        written: int = self._real["write"](descriptor, content)
        return written

    def _ftruncate(self, descriptor: int, size: int) -> None:
        if (where := self._of(descriptor)) is not None:
            self._note(Operation("truncate", where, size=size))
        self._real["ftruncate"](descriptor, size)

    def _fsync(self, descriptor: int) -> None:
        if (where := self._of(descriptor)) is not None:
            self._note(Operation("fsync", where))
        self._real["fsync"](descriptor)

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._named("mkdir", path, dir_fd, mode)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._named("unlink", path, dir_fd)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._named("rmdir", path, dir_fd)

    def _rename(self, source: Any, target: Any) -> None:
        where = self._below(source, None)
        if where is not None:
            self._note(Operation("rename", where, self._below(target, None) or ""))
        self._real["rename"](source, target)

    def _named(self, kind: str, path: Any, dir_fd: int | None, *mode: int) -> None:
        where = self._below(path, dir_fd)
        if where is not None:
            self._note(Operation(kind, where))
        self._real[kind](path, *mode, dir_fd=dir_fd)

    def _note(self, operation: Operation, *, keep: bool = True) -> int | None:
        number = self._fault(len(self.log), operation)
        if number:
            raise OSError(number, os.strerror(number))
        if keep:
            self.log.append(operation)
        return number

    def _of(self, descriptor: int) -> str | None:
        return self._below(os.readlink(f"/proc/self/fd/{descriptor}"), None)

    def _below(self, path: Any, dir_fd: int | None) -> str | None:
        base = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else Path()
        whole = os.path.normpath(base / os.fspath(path))
        inside = whole == str(self.root) or whole.startswith(f"{self.root}/")
        return os.path.relpath(whole, self.root) if inside else None


_PATCHED = ("open", "write", "ftruncate", "fsync", "mkdir", "unlink", "rmdir", "rename")
