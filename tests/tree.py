"""The source tree as data: files, parsed once, for the tests that read it instead of running it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
_SKIPPED = {"build", "dist", "runs"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    """Python files under folders of the repository, relative to its root, in order."""
    found = (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(
        p for p in found if not _SKIPPED & set(p.parts) and not any(n.startswith(".") for n in p.parts)
    )


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(text_of(path), filename=str(path))


@functools.cache
def text_of(path: Path) -> str:
    """The text of a file."""
    return (ROOT / path).read_text()


def lines_of(path: Path) -> int:
    """How many lines a file has."""
    return len(text_of(path).splitlines())


def module_of(path: Path) -> str:
    """The dotted name that a file is imported by: ampd/core/keys.py -> ampd.core.keys."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions(path: Path) -> Iterator[Function]:
    """Every function and method of a file, nested ones too."""
    return (node for node in ast.walk(parsed(path)) if isinstance(node, Function))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What a tree imports, each dotted name with its line; `from a import b` gives "a.b"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def marked(paths: Sequence[Path], faults: Mapping[str, str]) -> list[Any]:
    """Parameters for a test of each file; those with a known fault must fail, and say why."""
    return [
        pytest.param(path, id=str(path), marks=_known(faults[str(path)]) if str(path) in faults else ())
        for path in paths
    ]


def _known(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(strict=True, reason=reason)
