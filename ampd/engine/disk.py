"""The file operations that a checkpoint and the loss log are made of: every byte that a worker keeps passes here.

Each is a call or two of `os`, so that what is on the disk after a crash at any of them can be worked out, and tests
do: they record the calls, cut the record at every point, drop what was never synced, and look. A library that writes
files by itself would be outside of that; and it would tell of a full disk in words of its own, where the kernel's
error number says what to do. Errors are OSErrors that name their file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from ampd import failpoints

_SPARE_BYTES = 1 << 20
"""Room for directories, the manifest, and rows of the loss log that come meanwhile."""


def write(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Make a file of `chunks` and sync it; its size, and the SHA-256 of what it was given."""
    digest, size = hashlib.sha256(), 0
    with naming(path), _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            append(file, chunk)
        os.fsync(file)
    return size, digest.hexdigest()


def append(file: int, content: bytes | memoryview) -> None:
    """Write all of `content`, however little the kernel takes at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[take_some(file, rest) :]


def take_some(file: int, content: bytes | bytearray | memoryview) -> int:
    """Write a part of `content`; how much of it, which is never nothing."""
    written = os.write(file, content)
    if written == 0:
        raise OSError(errno.EIO, "the disk takes no more, and does not say why")
    return written


def open_log(path: Path, size: int) -> int:
    """Open a file to be appended to, cut back to its first `size` bytes and made to last."""
    with naming(path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        os.ftruncate(file, size)
        os.fsync(file)
        sync(path.parent)
    return file


def make_directory(path: Path) -> None:
    """Make a directory and those above it, so that they are there after a crash too."""
    if not path.is_dir():
        make_directory(path.parent)
        with naming(path):
            os.mkdir(path)
        sync(path.parent)


def publish(temporary: Path, target: Path) -> None:
    """Make a synced directory visible under its name, for good."""
    with naming(target):
        failpoints.reach("checkpoint.rename")
        os.rename(temporary, target)
        failpoints.reach("checkpoint.renamed")
    sync(target.parent)


def remove(path: Path) -> None:
    """Take a directory out of sight for good in one rename, then delete it; what a crash leaves of it is hidden."""
    hidden = path.with_name(f".{path.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    with naming(path):
        failpoints.reach("checkpoint.remove")
        os.rename(path, hidden)
    sync(path.parent)
    shutil.rmtree(hidden, ignore_errors=True)


def sync(directory: Path) -> None:
    """Make what was created, renamed or removed in a directory last."""
    with naming(directory), _opened(directory, os.O_RDONLY | os.O_DIRECTORY) as handle:
        os.fsync(handle)


def require_room(directory: Path, size: int) -> None:
    """Raise OSError (ENOSPC) unless the file system of `directory` has room for `size` bytes and some to spare."""
    found = os.statvfs(directory)
    if found.f_blocks == 0:
        return  # a file system that does not say
    free, needed = found.f_bavail * found.f_frsize, size + size // 16 + _SPARE_BYTES
    if free < needed:
        message = f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free"
        raise OSError(errno.ENOSPC, message, str(directory))


def prove_room(directory: Path, size: int) -> None:
    """Raise OSError unless there is room for `size` bytes and a file can be written now; nothing of it stays."""
    proof = directory / ".proof"
    make_directory(directory)
    require_room(directory, size)
    try:
        with naming(proof):
            failpoints.reach("checkpoint.room")
            proof.unlink(missing_ok=True)
        write(proof, [bytes(_SPARE_BYTES)])
    finally:
        with contextlib.suppress(OSError):  # a disk that is read-only has none
            proof.unlink(missing_ok=True)


def words(error: OSError) -> str:
    """An error as an operator reads it: where, and what."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors that come without a file get this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
