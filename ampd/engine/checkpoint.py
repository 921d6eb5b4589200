"""Checkpoints: complete, verified, made visible in one rename, and read back without running code.

A checkpoint is a directory `window-00000500-0002` (the state before window 500, after the job's second live action)
with safetensors files and `manifest.json`, which lists every file with its size and SHA-256. Window and action number
identify a state, so a name that exists already is never written again. It is written beside its place under a
temporary name, every file is fsynced, then the directory, then it is renamed and the parent fsynced. So a name that is
visible is complete; a damaged one is noticed by its checksums, renamed `...damaged` and the one before it used. No file
named "latest" is trusted. A quarantined window is kept in the same form, by the same code.

A state is a tree of dicts whose leaves are tensors or plain data; tensors go to safetensors, the rest to the
manifest. Tuples come back as lists, keys as strings.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ampd import __version__
from ampd.errors import CheckpointError

FORMAT = 1
_PREFIX = "window-"


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
    target = root / f"{_PREFIX}{window:08d}-{seq:04d}"
    if target.exists():
        return target, _size_of(verify(target))
    tensors, plain = flatten(state)
    _refuse_nonfinite({k: v for k, v in tensors.items() if k.partition("/")[2] not in unjudged}, plain)
    return target, _publish(target, (window, seq), tensors, plain)


def quarantine(root: Path, window: int, content: Mapping[str, Any]) -> Path:
    """Keep a window that was never applied, with what is needed to look at it; returns its directory."""
    target = root / f"{_PREFIX}{window:08d}"
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
    temporary.mkdir(parents=True)
    try:
        manifest = Manifest(
            format=FORMAT, window=number[0], seq=number[1], torch_version=str(torch.__version__),
            ampd_version=__version__, files=_write_tensors(temporary, tensors), plain=dict(plain),
        )  # fmt: skip
        _write(temporary / "manifest.json", msgspec.json.encode(manifest))
        _sync(temporary)
        os.replace(temporary, target)
        _sync(root)
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
    numbers = {path: path.name.removeprefix(_PREFIX).split("-") for path in root.glob(f"{_PREFIX}*")}
    visible = [path for path, parts in numbers.items() if all(part.isdigit() for part in parts)]
    return sorted(visible, key=lambda path: [int(part) for part in numbers[path]])


def verify(path: Path) -> Manifest:
    """The manifest of a checkpoint whose every file is what it lists; raises CheckpointError with the first that is not."""
    try:
        manifest = msgspec.json.decode((path / "manifest.json").read_bytes(), type=Manifest)
        for name, entry in manifest.files.items():
            if _entry_of(path / name) != entry:
                raise CheckpointError(
                    f"{path / name} is not what its manifest lists (size or checksum differs)"
                )
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise CheckpointError(f"{path} has format {manifest.format}, this version reads {FORMAT}")
    return manifest


def load(path: Path, manifest: Manifest) -> dict[str, Any]:
    """The state of a verified checkpoint, its tensors on the host."""
    leaves: dict[str, Any] = dict(manifest.plain)
    for name in manifest.files:
        leaves.update(load_file(path / name))
    return unflatten(leaves)


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what earlier crashes left half done."""
    for path in (*listed(root)[:-keep], *root.glob(f".{_PREFIX}*")):
        shutil.rmtree(path, ignore_errors=True)


def flatten(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The leaves of a state by path: tensors, and plain data. Paths join keys by "/"."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for path, leaf in _leaves(state, ""):
        if isinstance(leaf, Tensor):
            tensors[path] = leaf
        else:
            plain[path] = leaf
    return tensors, plain


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree whose leaves are `leaves`."""
    state: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = (part.replace("%2F", "/").replace("%25", "%") for part in path.split("/"))
        node = state
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return state


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = prefix + str(key).replace("%", "%25").replace("/", "%2F")
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path + "/")
        else:
            yield path, value


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
    files = {}
    for group, members in groups.items():
        path = directory / f"{group}.safetensors"
        try:
            save_file(members, path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} cannot be written: {error}") from error
        _sync(path)
        files[path.name] = _entry_of(path)
    return files


def _size_of(manifest: Manifest) -> int:
    return sum(entry.bytes for entry in manifest.files.values())


def _entry_of(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(file.tell(), digest)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
