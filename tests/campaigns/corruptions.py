"""Checkpoints that are damaged in every way that a disk, a copy or a hand damages them: each is found, and the one before is used.

One job's last three checkpoints are damaged again and again, in this process: a bit, a block, a length, a file missing,
swapped, left over from the checkpoint before or one too many, a manifest that was edited, with and without a checksum to
go with it, a whole checkpoint under the name of another. After each the newest good one is asked for, as a worker's
start asks, and must hold, bit for bit, what was saved there; the damaged one is set aside, with the reason.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from ampd.engine import checkpoint
from tests.engine import toy

NAME = "corruptions"
CORRUPTIONS = 40
_BLOCK = 4096

Damage = Callable[[random.Random, Path, Path], None]
"""Damages the first directory; the second is the checkpoint before it."""


def case(seed: int, corruptions: int = CORRUPTIONS) -> Counter[str]:
    """Damage so often, by kind; many are summed up."""
    draw, done, begin = random.Random(seed), Counter[str](), time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ampd-") as home:
        _save_three(Path(home))
        for _ in range(corruptions):
            kind = draw.choice(sorted(DAMAGES))
            _try(Path(home), kind, draw)
            done[kind] += 1
    if corruptions > CORRUPTIONS:
        print(
            f"{NAME}: {corruptions} found in {time.monotonic() - begin:.0f} s: {dict(sorted(done.items()))}"
        )
    return done


def _save_three(root: Path) -> None:
    trainer = toy.trainer()
    for window in (4, 8, 12):
        toy.run(trainer, range(window - 4, window))
        checkpoint.save(root, window, 0, trainer.state_dict())


def _try(root: Path, kind: str, draw: random.Random) -> None:
    """Damage the newest checkpoint, sometimes the one before it too, and look for the newest that is good."""
    oldest, before, newest = checkpoint.listed(root)
    spoiled = [newest, before][: draw.choice((1, 1, 1, 2))]
    expected = (before, oldest)[len(spoiled) - 1]
    with tempfile.TemporaryDirectory(prefix="ampd-") as kept:
        copies = {path: shutil.copytree(path, Path(kept) / path.name) for path in spoiled}
        states = _states(expected)
        for path in spoiled:
            DAMAGES[kind](draw, path, oldest)
        aside = dict[Path, str]()
        found = checkpoint.newest(root, aside.__setitem__)
        assert found is not None and found[0] == expected, f"{kind}: {found} was used"
        assert sorted(aside) == sorted(path.with_name(path.name + ".damaged") for path in spoiled), aside
        assert all(aside.values()), f"{kind}: no reason is given"
        assert _states(expected) == states and checkpoint.load(*found), f"{kind}: the good one was touched"
        for damaged in aside:
            shutil.rmtree(damaged)
        for path, copy in copies.items():
            shutil.copytree(copy, path)


def _states(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}


def _any_file(draw: random.Random, path: Path) -> Path:
    return draw.choice(sorted(path.iterdir()))


def _flip(draw: random.Random, path: Path, _older: Path) -> None:
    file = _any_file(draw, path)
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def _truncate(draw: random.Random, path: Path, _older: Path) -> None:
    file = _any_file(draw, path)
    os.truncate(file, draw.randrange(file.stat().st_size))


def _lengthen(draw: random.Random, path: Path, _older: Path) -> None:
    with _any_file(draw, path).open("ab") as file:
        file.write(draw.randbytes(draw.randint(1, _BLOCK)))


def _blank(draw: random.Random, path: Path, _older: Path) -> None:
    """A block of zeros where there were none: what a lost write leaves behind."""
    file = _any_file(draw, path)
    content = file.read_bytes()
    begin = draw.choice([at for at, byte in enumerate(content) if byte])
    end = min(begin + draw.randint(1, _BLOCK), len(content))
    file.write_bytes(content[:begin] + bytes(end - begin) + content[end:])


def _swap(draw: random.Random, path: Path, _older: Path) -> None:
    one, other = draw.sample(sorted(path.iterdir()), 2)
    one.rename(path / "between")
    other.rename(one)
    (path / "between").rename(other)


def _stale(draw: random.Random, path: Path, older: Path) -> None:
    """A file of an older checkpoint in the place of this one's."""
    changed = [
        file for file in sorted(older.iterdir()) if file.read_bytes() != (path / file.name).read_bytes()
    ]
    file = draw.choice(changed)
    shutil.copy(file, path / file.name)


def _remove(draw: random.Random, path: Path, _older: Path) -> None:
    _any_file(draw, path).unlink()


def _add(draw: random.Random, path: Path, _older: Path) -> None:
    (path / draw.choice(("extra.safetensors", ".manifest.json.swp", "core"))).write_bytes(draw.randbytes(8))


def _empty(_draw: random.Random, path: Path, _older: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _nest(draw: random.Random, path: Path, _older: Path) -> None:
    """A directory where a file was."""
    file = _any_file(draw, path)
    file.unlink()
    file.mkdir()


def _edit(draw: random.Random, path: Path, _older: Path) -> None:
    """Another digit somewhere in the manifest, by hand."""
    manifest = path / checkpoint.MANIFEST
    content = manifest.read_text()
    at = draw.choice([at for at, letter in enumerate(content) if letter.isdigit()])
    manifest.write_text(content[:at] + draw.choice("0123456789".replace(content[at], "")) + content[at + 1 :])


def _forge(draw: random.Random, path: Path, older: Path) -> None:
    """The same in what it says of its files, with a checksum that goes with it."""
    manifest = path / checkpoint.MANIFEST
    before = checkpoint.verify(path)
    name = draw.choice(sorted(before.files))
    sha256 = before.files[name].sha256
    content = manifest.read_text().replace(sha256, hashlib.sha256(sha256.encode()).hexdigest())
    manifest.write_text(content)
    line = f"{hashlib.sha256(content.encode()).hexdigest()}  {checkpoint.MANIFEST}\n"
    (path / checkpoint.CHECKSUM).write_text(line)


def _impersonate(_draw: random.Random, path: Path, older: Path) -> None:
    """An older checkpoint, whole, under this one's name."""
    shutil.rmtree(path)
    shutil.copytree(older, path)


DAMAGES: dict[str, Damage] = {
    "a bit": _flip, "cut short": _truncate, "too long": _lengthen, "a block of zeros": _blank, "two files swapped": _swap,
    "an older file": _stale, "a file missing": _remove, "a file too many": _add, "empty": _empty,
    "a directory for a file": _nest, "an edited manifest": _edit, "a forged manifest": _forge,
    "another checkpoint": _impersonate,
}  # fmt: skip
