"""The style budget, measured: small functions, small files, a sentence for whatever is public, and enough tests.

The figures are those of the libraries that we learn from (structlog, svcs, starlette, h11): their median function is
under ten lines and their ninetieth percentile under thirty, docstrings not counted.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tree import Function, functions, lines_of, marked, parsed, sources

SOURCE = sources("ampd", "plugins")
MEDIAN, NINETIETH, LONGEST, FILE, CONSTRUCTOR = 8, 25, 50, 300, 20
TESTS_PER_SOURCE = 1.2

LONG: dict[str, str] = {}
"""Files that are to become shorter; one that has must leave this list."""

FOREIGN = {"forward", "backward", "emit", "write", "isatty", "flush"}
"""Methods whose contract is another library's: torch's modules and functions, logging, text streams."""


def length_of(function: Function) -> int:
    """Lines from `def` to the end, docstring not counted."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


LENGTHS = [length_of(function) for path in SOURCE for function in functions(path)]


def test_the_median_function_is_short() -> None:
    """Half of all functions fit into eight lines."""
    assert statistics.median(LENGTHS) <= MEDIAN


def test_nine_of_ten_functions_fit_a_glance() -> None:
    """The ninetieth percentile is at 25 lines or below."""
    assert statistics.quantiles(LENGTHS, n=10)[-1] <= NINETIETH


@pytest.mark.parametrize("path", SOURCE, ids=str)
def test_no_function_is_long(path: Path) -> None:
    """None is over 50 lines, no constructor over 20: what works is not done there."""
    long = {
        f"{function.name}:{function.lineno}": length_of(function)
        for function in functions(path)
        if length_of(function) > (CONSTRUCTOR if function.name == "__init__" else LONGEST)
    }

    assert long == {}


@pytest.mark.parametrize("path", marked(SOURCE, LONG))
def test_no_file_is_long(path: Path) -> None:
    """A file is read in one sitting."""
    assert lines_of(path) <= FILE


@pytest.mark.parametrize("path", SOURCE, ids=str)
def test_what_is_public_says_what_it_is(path: Path) -> None:
    """Modules, classes, functions and methods without an underscore have a docstring."""
    tree = parsed(path)
    mute = [name for name, node in public(tree) if ast.get_docstring(node) is None]
    if tree.body and ast.get_docstring(tree) is None:
        mute.append("the module")

    assert mute == []


def public(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """The public classes and functions of a module, and the public methods of those classes."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            if not is_section(node):
                yield node.name, node
            yield from ((f"{node.name}.{method.name}", method) for method in methods(node))


def is_section(node: ast.ClassDef) -> bool:
    """A table of the job file: what it is stands with each of its keys, and is tested there."""
    return any(isinstance(base, ast.Name) and base.id == "Section" for base in node.bases)


def methods(node: ast.ClassDef) -> Iterator[Function]:
    """The public methods of a class whose contract is its own."""
    found = (method for method in node.body if isinstance(method, Function))
    return (method for method in found if not method.name.startswith("_") and method.name not in FOREIGN)


def test_there_are_more_lines_of_tests_than_of_source() -> None:
    """At least 1.2 lines of tests for each line of source."""
    source = sum(map(lines_of, SOURCE))
    tests = sum(map(lines_of, sources("tests")))

    assert tests >= TESTS_PER_SOURCE * source, f"{tests} lines of tests for {source} of source"
