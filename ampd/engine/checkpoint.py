"""Checkpoints: complete, verified, made visible in one rename, and read back without running code.

A checkpoint is a directory `window-00000500-0002` (the state before window 500, after the job's second live action)
with safetensors files and `manifest.json`, which lists every file with its size and SHA-256; `manifest.sha256` vouches
for the manifest, in the form that `sha256sum --check` reads. Window and action number identify a state, so a name that
exists already is never written again. It is written beside its place under a temporary name, every file is fsynced,
then the directory, and all of it is read back; then it is renamed and the parent fsynced. So a name that is visible is
complete; a damaged one (a byte, a file missing or one too many, another state's name) is renamed `...damaged` and the
one before it used. No file named "latest" is trusted. Older ones go only after that (`retention`). A quarantined
window is kept in the same form, by the same code.

Of the leaves of a state (`engine.leaves`) tensors go to safetensors, the rest to the manifest.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file
from torch import Tensor

from ampd import __version__, failpoints
from ampd.engine import disk, rows, tensor_file
from ampd.engine.leaves import flatten, unflatten
from ampd.engine.rows import Shared
from ampd.errors import CheckpointError

FORMAT, SHARED_FORMAT = 2, 3  # what knows of no shared tensors must not take a part for the whole
MANIFEST, CHECKSUM = "manifest.json", "manifest.sha256"
PREFIX = "window-"
"""Of the names of checkpoints."""


class FileEntry(msgspec.Struct, frozen=True):
    """What a file must be to be trusted."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint's own description: by path, `plain` has what is no tensor, `shared` what ranks have in parts."""

    format: int
    window: int
    seq: int
    torch_version: str
    ampd_version: str
    files: dict[str, FileEntry]
    plain: dict[str, Any]
    shared: dict[str, Shared] = {}


def save(
    root: Path, window: int, seq: int, state: Mapping[str, Any], unjudged: Collection[str] = ()
) -> tuple[Path, int]:
    """Write the state before `window`, after action `seq`, under `root`; returns its directory and size in bytes.

    `unjudged` are buffers of the model that are not finite by design.

    Raises CheckpointError for a state that is not finite, OSError where the disk fails; either way nothing
    visible has changed.
    """
    target = target_of(root, window, seq)
    if target.exists():
        return target, size_of_standing(target)
    tensors, plain = flatten(state)
    refuse_nonfinite(tensors, plain, unjudged)
    return target, _publish(target, (window, seq), tensors, plain)


def target_of(root: Path, window: int, seq: int) -> Path:
    """Where the state before `window`, after action `seq`, has its place."""
    return root / f"{PREFIX}{window:08d}-{seq:04d}"


def size_of_standing(target: Path) -> int:
    """The size of a checkpoint that an earlier try has made, which may have ended before it was there for good."""
    size = _size_of(verify(target))
    disk.sync(target.parent)
    return size


def quarantine(root: Path, window: int, content: Mapping[str, Any]) -> Path:
    """Keep a window that was never applied, with what is needed to look at it; returns its directory."""
    target = root / f"{PREFIX}{window:08d}"
    if not target.exists():
        _publish(target, (window, 0), *flatten(content))
    return target


def _publish(
    target: Path, number: tuple[int, int], tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> int:
    """Write a complete directory and make it visible in one rename; returns the size of its files in bytes."""
    with unpublished(target, sum(tensor.nbytes for tensor in tensors.values())) as directory:
        return finish(directory, target, number, write_tensors(directory, tensors), plain)


@contextmanager
def unpublished(target: Path, size: int) -> Iterator[Path]:
    """A directory beside `target` for `size` bytes of tensors; gone again where anything goes wrong with it."""
    root = target.parent
    temporary = root / f".{target.name}.tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    disk.make_directory(root)
    disk.require_room(root, size)
    try:
        with disk.naming(temporary):
            failpoints.reach("checkpoint.write")
            os.mkdir(temporary)
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def finish(
    directory: Path, target: Path, number: tuple[int, int], files: Mapping[str, FileEntry], plain: Mapping[str, Any],
    shared: Mapping[str, Shared] | None = None, seen: Collection[str] = (),
) -> int:  # fmt: skip
    """Give a directory its manifest and its name; `seen` are files that were read back already. Returns its size."""
    manifest = Manifest(
        format=SHARED_FORMAT if shared else FORMAT, window=number[0], seq=number[1],
        torch_version=str(torch.__version__), ampd_version=__version__, files=dict(files), plain=dict(plain),
        shared=dict(shared or {}),
    )  # fmt: skip
    failpoints.reach("checkpoint.manifest")
    _write_manifest(directory, manifest)
    disk.sync(directory)
    _read_back(directory, seen)
    disk.publish(directory, target)
    return _size_of(manifest)


def newest(root: Path, set_aside: Callable[[Path, str], None]) -> tuple[Path, Manifest] | None:
    """The newest checkpoint that verifies, or None; damaged ones are renamed and reported to `set_aside`."""
    for path in reversed(listed(root)):
        try:
            return path, verify(path)
        except CheckpointError as error:
            aside = path.with_name(path.name + ".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
            set_aside(aside, str(error))
    return None


def listed(root: Path) -> list[Path]:
    """Visible checkpoints, oldest first."""
    numbers = {path: numbers_of(path) for path in root.glob(f"{PREFIX}*")}
    return sorted((path for path, found in numbers.items() if found), key=lambda path: numbers[path])


def numbers_of(path: Path) -> list[int]:
    """Window and action number, by a checkpoint's name; none where it is not one that is visible."""
    parts = path.name.removeprefix(PREFIX).split("-")
    return [int(part) for part in parts] if all(part.isdigit() for part in parts) else []


def verify(path: Path, seen: Collection[str] = ()) -> Manifest:
    """The manifest of a checkpoint that is what it lists, no more and no less; raises CheckpointError otherwise.

    Of files that were `seen` as they should be the content is not looked at again.
    """
    try:
        manifest = described(path)
        _require_exactly({*manifest.files, MANIFEST, CHECKSUM}, path)
        for name, entry in manifest.files.items():
            if name not in seen and entry_of(path / name) != entry:
                raise CheckpointError(
                    f"{path / name} is not what its manifest lists (size or checksum differs)"
                )
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if manifest.format not in (FORMAT, SHARED_FORMAT):
        raise CheckpointError(
            f"{path} has format {manifest.format}, this version reads {FORMAT} and {SHARED_FORMAT}"
        )
    held = [manifest.window, manifest.seq]
    if numbers_of(path) not in (
        [],
        held[:1],
        held,
    ):  # a save would take it for the state that it is to write
        raise CheckpointError(f"{path} is misnamed: it holds window {held[0]}, action {held[1]}")
    return manifest


def described(path: Path) -> Manifest:
    """The manifest alone, as it was written; raises CheckpointError, OSError or msgspec.DecodeError."""
    return msgspec.json.decode(_vouched_for(path), type=Manifest)


def _vouched_for(path: Path) -> bytes:
    """The manifest's bytes, whose checksum stands beside them."""
    content = (path / MANIFEST).read_bytes()
    if (path / CHECKSUM).read_bytes() != _checksum_line(hashlib.sha256(content).hexdigest()):
        raise CheckpointError(f"{path / MANIFEST} is not what {CHECKSUM} lists")
    return content


def _checksum_line(sha256: str) -> bytes:
    return f"{sha256}  {MANIFEST}\n".encode()


def _require_exactly(names: set[str], path: Path) -> None:
    found = set(os.listdir(path))
    if found != names:
        wrong = ", ".join(sorted(found ^ names))
        raise CheckpointError(f"{path} has files missing or too many: {wrong}")


def load(path: Path, manifest: Manifest, part: tuple[int, int] | None = None) -> dict[str, Any]:
    """The state of a verified checkpoint, its tensors on the host; of shared ones the rows of `part`, see `rows.load`."""
    leaves: dict[str, Any] = dict(manifest.plain)
    for name in manifest.files.keys() - rows.files_of(manifest.shared):
        leaves.update(load_file(path / name))
    leaves.update(rows.load(path, manifest.shared, part))
    return unflatten(leaves)


def refuse_nonfinite(
    tensors: Mapping[str, Tensor], plain: Mapping[str, Any], unjudged: Collection[str] = ()
) -> None:
    """Raise CheckpointError for a number that is not finite, save in buffers that are so by design."""
    for name, value in plain.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise CheckpointError(
                f"{name} = {value} is not finite, and JSON cannot hold it; the previous one stands"
            )
    for name, tensor in tensors.items():
        is_judged = tensor.is_floating_point() and name.partition("/")[2] not in unjudged
        if is_judged and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{name} is not finite; a checkpoint of it would be useless, the previous one stands"
            )


def write_tensors(
    directory: Path, tensors: Mapping[str, Tensor], rank: int | None = None
) -> dict[str, FileEntry]:
    """One file for each top-level key of the state, so that a part can be read alone; of a rank, for its parts."""
    names: dict[str, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        name = f"{path.split('/')[0]}.safetensors" if rank is None else rows.file_of(path, rank)
        names.setdefault(name, {})[path] = tensor
    return {
        name: FileEntry(*disk.write(directory / name, tensor_file.chunks(members)))
        for name, members in names.items()
    }


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    _size, sha256 = disk.write(directory / MANIFEST, [msgspec.json.encode(manifest)])
    disk.write(directory / CHECKSUM, [_checksum_line(sha256)])


def _read_back(directory: Path, seen: Collection[str]) -> None:
    try:
        verify(directory, seen)
    except CheckpointError as error:
        raise OSError(errno.EIO, f"what was written reads back as something else: {error}") from error


def _size_of(manifest: Manifest) -> int:
    return sum(entry.bytes for entry in manifest.files.values())


def entry_of(path: Path) -> FileEntry:
    """What a file is."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(file.tell(), digest)
