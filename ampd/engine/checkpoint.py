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
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file
from torch import Tensor

from ampd import __version__, failpoints
from ampd.engine import disk, tensor_file
from ampd.engine.leaves import flatten, unflatten
from ampd.errors import CheckpointError

FORMAT = 2
MANIFEST, CHECKSUM = "manifest.json", "manifest.sha256"
PREFIX = "window-"
"""Of the names of checkpoints."""


class FileEntry(msgspec.Struct, frozen=True):
    """What a file must be to be trusted."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint's own description; `plain` holds the state's leaves that are not tensors, by dotted path."""

    format: int
    window: int
    seq: int
    torch_version: str
    ampd_version: str
    files: dict[str, FileEntry]
    plain: dict[str, Any]


def save(
    root: Path, window: int, seq: int, state: Mapping[str, Any], unjudged: Collection[str] = ()
) -> tuple[Path, int]:
    """Write the state before `window`, after action `seq`, under `root`; returns its directory and size in bytes.

    `unjudged` are buffers of the model that are not finite by design.

    Raises CheckpointError for a state that is not finite, OSError where the disk fails; either way nothing
    visible has changed.
    """
    target = root / f"{PREFIX}{window:08d}-{seq:04d}"
    if target.exists():
        size = _size_of(verify(target))
        disk.sync(root)  # an earlier try may have ended here
        return target, size
    tensors, plain = flatten(state)
    _refuse_nonfinite({k: v for k, v in tensors.items() if k.partition("/")[2] not in unjudged}, plain)
    return target, _publish(target, (window, seq), tensors, plain)


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
    root = target.parent
    temporary = root / f".{target.name}.tmp-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    disk.make_directory(root)
    disk.require_room(root, sum(tensor.nbytes for tensor in tensors.values()))
    try:
        with disk.naming(temporary):
            failpoints.reach("checkpoint.write")
            os.mkdir(temporary)
        manifest = Manifest(
            format=FORMAT, window=number[0], seq=number[1], torch_version=str(torch.__version__),
            ampd_version=__version__, files=_write_tensors(temporary, tensors), plain=dict(plain),
        )  # fmt: skip
        failpoints.reach("checkpoint.manifest")
        _write_manifest(temporary, manifest)
        disk.sync(temporary)
        _read_back(temporary)
        disk.publish(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
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


def verify(path: Path) -> Manifest:
    """The manifest of a checkpoint that is what it lists, no more and no less; raises CheckpointError otherwise."""
    try:
        manifest = described(path)
        _require_exactly({*manifest.files, MANIFEST, CHECKSUM}, path)
        for name, entry in manifest.files.items():
            if _entry_of(path / name) != entry:
                raise CheckpointError(
                    f"{path / name} is not what its manifest lists (size or checksum differs)"
                )
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise CheckpointError(f"{path} has format {manifest.format}, this version reads {FORMAT}")
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


def load(path: Path, manifest: Manifest) -> dict[str, Any]:
    """The state of a verified checkpoint, its tensors on the host."""
    leaves: dict[str, Any] = dict(manifest.plain)
    for name in manifest.files:
        leaves.update(load_file(path / name))
    return unflatten(leaves)


def _refuse_nonfinite(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    for name, value in plain.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise CheckpointError(
                f"{name} = {value} is not finite, and JSON cannot hold it; the previous one stands"
            )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{name} is not finite; a checkpoint of it would be useless, the previous one stands"
            )


def _write_tensors(directory: Path, tensors: Mapping[str, Tensor]) -> dict[str, FileEntry]:
    """One file for each top-level key of the state, so that a part can be read alone."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(name.split("/")[0], {})[name] = tensor
    names = {f"{group}.safetensors": members for group, members in groups.items()}
    return {
        name: FileEntry(*disk.write(directory / name, tensor_file.chunks(members)))
        for name, members in names.items()
    }


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    _size, sha256 = disk.write(directory / MANIFEST, [msgspec.json.encode(manifest)])
    disk.write(directory / CHECKSUM, [_checksum_line(sha256)])


def _read_back(directory: Path) -> None:
    try:
        verify(directory)
    except CheckpointError as error:
        raise OSError(errno.EIO, f"what was written reads back as something else: {error}") from error


def _size_of(manifest: Manifest) -> int:
    return sum(entry.bytes for entry in manifest.files.values())


def _entry_of(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(file.tell(), digest)
