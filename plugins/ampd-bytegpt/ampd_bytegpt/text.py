"""The text: Python's own manual by default, or files; cut into training and validation bytes. Loads no torch.

The default, `pydoc_data.topics`, is English that every CPython carries, so the first run needs no download. Much of
it stands there twice (a statement's page repeats its section): left in, a third of the validation text would be
found word for word in the training text and its loss would praise memory. So a paragraph counts once, in any text.

The split takes whole pieces, every tenth, not single samples: a random split of overlapping or neighbouring
samples would validate on text whose surroundings were trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from ampd.sdk import ConfigError
from ampd_bytegpt.spec import Options

PIECE_BYTES = 4096  # a few pages of prose: long against any context, short against the text
PIECES_PER_VALIDATION = 10
SHORT_PARAGRAPH_BYTES = 40  # headings and lone brackets may repeat


@dataclass(frozen=True, slots=True)
class Split:
    """Bytes to train on and bytes to measure on."""

    train: bytes
    validation: bytes


def check(options: Options) -> None:
    """Raise ConfigError for what the options' types cannot say; reads the text."""
    if options.width % options.heads or options.width // options.heads % 2:
        raise ConfigError(
            f"[workload.options] width = {options.width}, heads = {options.heads}: a head must have an even number of "
            f"dimensions, width / heads is {options.width / options.heads:g}",
            field="workload.options.width",
            hint="make width an even multiple of heads",
        )
    load(options)


def load(options: Options) -> Split:
    """The split text; raises ConfigError where a file cannot be read or the text is too short."""
    text = _without_repeats(_read_files(options.text) if options.text else _manual())
    split = _split(text)
    if len(split.validation) <= options.context or len(split.train) <= 2 * options.context:
        needed = _needed_bytes(options.context)
        raise ConfigError(
            f"workload.options.text = {list(options.text)}: {len(text)} bytes of text without repeated paragraphs, "
            f"expected at least {needed} for context = {options.context}",
            field="workload.options.text",
            hint="name more or longer files, or make the context smaller",
        )
    return split


def _manual() -> bytes:
    return "".join(topics[name] for name in sorted(topics)).encode()


def _read_files(paths: tuple[str, ...]) -> bytes:
    return b"\n\n".join(_read(path) for path in paths)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"workload.options.text: cannot read {path!r} ({Path(path).absolute()}): {error.strerror}",
            field="workload.options.text",
            hint="give the path of a readable file; relative paths start at the current directory",
        ) from None


def _without_repeats(text: bytes) -> bytes:
    """The text with each paragraph where it stands first."""
    seen: set[bytes] = set()
    kept = []
    for paragraph in text.split(b"\n\n"):
        if len(paragraph) < SHORT_PARAGRAPH_BYTES or paragraph not in seen:
            kept.append(paragraph)
            seen.add(paragraph)
    return b"\n\n".join(kept)


def _split(text: bytes) -> Split:
    pieces = [text[start : start + PIECE_BYTES] for start in range(0, len(text), PIECE_BYTES)]
    middle = PIECES_PER_VALIDATION // 2  # not the first piece: a title page is unlike the rest
    is_held_out = [number % PIECES_PER_VALIDATION == middle for number in range(len(pieces))]
    train = b"".join(piece for piece, held in zip(pieces, is_held_out, strict=True) if not held)
    return Split(train, b"".join(piece for piece, held in zip(pieces, is_held_out, strict=True) if held))


def _needed_bytes(context: int) -> int:
    """The shortest text whose validation pieces hold context + 1 bytes."""
    rounds, rest = divmod(context, PIECE_BYTES)
    return (rounds * PIECES_PER_VALIDATION + PIECES_PER_VALIDATION // 2) * PIECE_BYTES + rest + 1
