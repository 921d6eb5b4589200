"""Where bytegpt's text comes from and how it is split."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ampd_bytegpt.spec import Options
from ampd_bytegpt.text import PIECE_BYTES, SHORT_PARAGRAPH_BYTES, check, load

from ampd.errors import ConfigError

SEED = 7


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    """A file of 30 pieces of distinct paragraphs."""
    draw = random.Random(SEED)
    paragraphs = [draw.randbytes(250).hex() for _ in range(30 * PIECE_BYTES // 502)]
    path = tmp_path / "prose.txt"
    path.write_text("\n\n".join(paragraphs))
    return path


def test_the_default_text_is_pythons_manual() -> None:
    """No file and no download: English of a few hundred thousand bytes comes with Python."""
    split = load(Options())

    assert len(split.train) > 300_000
    assert b"statement" in split.train


def test_a_tenth_is_held_out() -> None:
    """Validation has about one byte in ten."""
    split = load(Options())

    share = len(split.validation) / (len(split.train) + len(split.validation))

    assert share == pytest.approx(0.1, abs=0.02)


def test_no_byte_is_lost_or_used_twice(prose: Path) -> None:
    """Training and validation text together are the file."""
    split = load(Options(text=(str(prose),)))

    assert len(split.train) + len(split.validation) == prose.stat().st_size
    assert sorted(split.train + split.validation) == sorted(prose.read_bytes())


def test_validation_is_made_of_contiguous_pieces(prose: Path) -> None:
    """What is held out stands in the file in one stretch per piece, and nowhere in the training text."""
    split = load(Options(text=(str(prose),)))

    for start in range(0, len(split.validation), PIECE_BYTES):
        piece = split.validation[start : start + PIECE_BYTES]
        assert piece in prose.read_bytes()
        assert piece not in split.train


@pytest.mark.parametrize("start", range(0, 30_000, 3_000))
def test_held_out_sentences_were_never_trained_on(start: int) -> None:
    """The manual repeats whole sections; no long stretch of validation text is in the training text."""
    split = load(Options())

    assert split.validation[start : start + 400] not in split.train


def test_a_repeated_paragraph_counts_once(tmp_path: Path, prose: Path) -> None:
    """The same file twice is the same text as once."""
    once = load(Options(text=(str(prose),)))

    twice = load(Options(text=(str(prose), str(prose))))

    assert twice == once


def test_short_lines_may_repeat(tmp_path: Path, prose: Path) -> None:
    """Headings and brackets are part of how text looks."""
    path = tmp_path / "headed.txt"
    heading = b"x" * (SHORT_PARAGRAPH_BYTES - 1)
    path.write_bytes(heading + b"\n\n" + prose.read_bytes() + b"\n\n" + heading)

    split = load(Options(text=(str(path),)))

    assert (split.train + split.validation).count(heading) == 2


def test_files_are_joined_in_the_given_order(tmp_path: Path, prose: Path) -> None:
    """`text = [...]` means that order."""
    first = tmp_path / "first.txt"
    first.write_bytes(b"begin")

    split = load(Options(text=(str(first), str(prose))))

    assert split.train.startswith(b"begin\n\n" + prose.read_bytes()[:100])


@pytest.mark.parametrize(("path", "reason"), [("missing.txt", "No such file"), (".", "Is a directory")])
def test_an_unreadable_file_is_named_with_the_reason(tmp_path: Path, path: str, reason: str) -> None:
    """The error says which file, in full, why, and which key to correct."""
    with pytest.raises(ConfigError, match=reason) as caught:
        check(Options(text=(str(tmp_path / path),)))

    assert str(tmp_path) in str(caught.value)
    assert caught.value.field == "workload.options.text"
    assert caught.value.hint


@pytest.mark.parametrize("context", [128, 4096])
def test_a_text_too_short_is_refused_with_what_is_needed(tmp_path: Path, context: int) -> None:
    """One byte less than the stated need is refused, the stated need is enough."""
    path, options = tmp_path / "short.txt", Options(text=(str(tmp_path / "short.txt"),), context=context)
    path.write_bytes(b"too short")
    with pytest.raises(ConfigError, match="9 bytes") as caught:
        check(options)
    needed = int(str(caught.value).partition("at least ")[2].split()[0])

    path.write_bytes(b"y" * (needed - 1))
    with pytest.raises(ConfigError, match="expected at least"):
        check(options)

    path.write_bytes(b"y" * needed)
    check(options)
