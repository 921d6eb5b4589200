"""Disks that really fail: a limit on the size of files, and file systems of a few megabytes, full or read-only."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """A scope in which no file can grow beyond `size` bytes: writes stop short there, then raise OSError (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class SmallDisk:
    """A file system of its own at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, free: int = 0) -> None:
        """Leave `free` bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                file.truncate(max(0, file.tell() - free))

    def clear(self) -> None:
        """Make room again."""
        self._ballast.unlink()

    def remount(self, mode: str) -> None:
        """`ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)


@contextmanager
def small_disk(path: Path, size: str = "4m") -> Iterator[SmallDisk]:
    """Mount one; the test is skipped where mounting is not allowed."""
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


class SilentDisk:
    """A disk whose syncs wait until it answers, as on a network mount whose server is gone."""

    def __init__(self) -> None:
        self._answers = threading.Event()

    @property
    def has_answered(self) -> bool:
        """Whether it is back."""
        return self._answers.is_set()

    def answer(self) -> None:
        """It is back."""
        self._answers.set()

    def answer_at(self, is_time: Callable[[], bool]) -> None:
        """It is back when something is true; looked at by a thread of its own."""

        def look() -> None:
            while not is_time():
                self._answers.wait(0.005)
            self.answer()

        threading.Thread(target=look, daemon=True).start()

    def wait(self) -> None:
        """What a sync does."""
        assert self._answers.wait(60.0), "nobody let the disk answer"


@contextmanager
def silent_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentDisk]:
    """Syncs of the writer's thread wait in this scope; the others are as they were."""
    disk, real = SilentDisk(), os.fsync

    def sync(descriptor: int) -> None:
        if threading.current_thread().name == "ampd-writer":
            disk.wait()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    try:
        yield disk
    finally:
        disk.answer()
