"""The architecture, read off the source: who may import whom, what never loads torch, and what is nowhere in the tree.

An import goes downward only. Siblings on one line never import each other:

    cli
    worker | daemon (with its parts)
    sdk | testing | optimizer
    engine | control | telemetry
    core
    errors
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tree import ROOT, functions, imports, marked, module_of, parsed, sources

DAEMON = {
    "attach",
    "child",
    "console",
    "daemon",
    "group",
    "job_directory",
    "place",
    "ports",
    "preflight",
    "presence",
    "sd_notify",
    "shell",
    "stacks",
}
RANKS = {
    "errors": 0, "failpoints": 1, "core": 1, "engine": 2, "control": 2, "telemetry": 2, "sdk": 3, "testing": 3, "optimizer": 3,
    "worker": 4, "daemon": 4, "cli": 5, "": 6,
}  # fmt: skip
"""The package itself names the library face, which is loaded when it is first used."""
FRONT_DOOR = max(RANKS.values()) + 1  # ampd/__init__.py: names from below, each loaded on first use
TORCH_FREE = ("errors", "core", "control", "telemetry", "sdk", "daemon", "cli", "worker")
TORCH_FREE_TOO = [
    "ampd",
    "ampd.engine.registry",
    "ampd.optimizer.settings",
    "ampd.engine.stages.specs",
    "ampd_bytegpt.spec",
    "ampd_digits.spec",
]

PURE = {
    "__future__", "bisect", "collections", "dataclasses", "difflib", "enum", "errno", "functools", "hashlib", "itertools",
    "math", "operator", "re", "signal", "statistics", "string", "tomllib", "types", "typing", "msgspec", "ampd",
}  # fmt: skip
"""What only computes; of `signal` the core takes the names of signals and of `errno` its numbers, which is data."""

CODE_RUNNERS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
ATTACKERS = {"tests/engine/test_checkpoint.py", "tests/engine/test_reads.py", "tests/test_architecture.py"}
"""Tests that pickle on purpose: to prove that it is not run, or that it is counted."""
PEERS = {"tests/bench/savers.py", "tests/bench/stall.py"}
"""What ampd is compared with saves by pickle, and is killed while it does."""

TOP_LEVEL = {
    "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt", "Dockerfile", "ampd",
    "plugins", "tests", "grafana", "systemd",
}  # fmt: skip
IGNORED = {"build", "dist", "runs"}

PACKAGE = sources("ampd")
EVERYTHING = sources("ampd", "plugins", "grafana", "tests")


def layer_of(module: str) -> str:
    """The layer of a module of ampd; "" for the package itself, which holds the version."""
    first = (*module.split("."), "")[1]
    return "daemon" if first in DAEMON else first


def ampd_imports(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of ampd that a file imports anywhere, in functions and for types too, with the line."""
    known = {module_of(p) for p in PACKAGE}
    for name, line in imports(parsed(path)):
        if name.split(".")[0] == "ampd":
            yield (name if name in known else name.rpartition(".")[0]), line


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_every_module_has_a_layer(path: Path) -> None:
    """A new module at the top of the package is placed in the drawing before it is used."""
    assert layer_of(module_of(path)) in {"", *RANKS}


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_imports_go_downward(path: Path) -> None:
    """Never up, never to a sibling, not even inside a function or for a type."""
    own = layer_of(module_of(path))
    wrong = [
        f"line {line}: {own or 'ampd'} imports {name}"
        for name, line in ampd_imports(path)
        if layer_of(name) not in ("", own) and RANKS[layer_of(name)] >= RANKS.get(own, FRONT_DOOR)
    ]

    assert wrong == []


@pytest.mark.parametrize(
    "path",
    marked(sources("ampd/core", "ampd/engine", "ampd/control"), {}),
)
def test_imports_stand_at_the_top(path: Path) -> None:
    """A function-level import hides a cycle; only processes that must start fast have a reason for one."""
    hidden = [f"{f.name}: {name}" for f in functions(path) for name, _line in imports(f)]

    assert hidden == []


def test_the_worker_loads_torch_after_its_first_word() -> None:
    """Its only late import is that of the engine, which is what Hello must not wait for."""
    late = [name for f in functions(Path("ampd/worker.py")) for name, _line in imports(f)]

    assert [name.rpartition(".")[0] for name in late] == ["ampd.engine.job"]


@pytest.mark.parametrize("path", sources("ampd/core"), ids=str)
def test_the_core_is_pure(path: Path) -> None:
    """No clock, thread, file, socket, torch: it imports only what computes."""
    assert {name.split(".")[0] for name, _line in imports(parsed(path))} <= PURE


@pytest.mark.parametrize("path", sources("ampd/core"), ids=str)
def test_the_core_opens_and_prints_nothing(path: Path) -> None:
    """What needs no import to reach the outside is not called either."""
    assert called_names(path) & {"open", "print", "input", "breakpoint"} == set()
    assert [name for name in attributes(path) if re.match(r"signal\.(?!Signals|SIG[A-Z0-9]+$)", name)] == []


@pytest.mark.parametrize("path", sources("plugins"), ids=str)
def test_plugins_know_the_sdk_only(path: Path) -> None:
    """They are built and tested as a stranger's would be."""
    used = {name for name, _line in imports(parsed(path)) if name.split(".")[0] == "ampd"}

    assert {name for name in used if name.split(".")[1] not in ("sdk", "testing")} == set()


LOADED = """
import importlib, json, sys
first = {}
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    for heavy in ("torch", "numpy"):
        if heavy in sys.modules:
            first.setdefault(heavy, name)
print(json.dumps(first))
"""


def test_torch_is_loaded_by_the_engine_alone() -> None:
    """Importing every module of every other layer, and what plugins describe themselves with, loads no torch."""
    modules = [module_of(p) for p in PACKAGE if layer_of(module_of(p)) in TORCH_FREE]

    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps([*TORCH_FREE_TOO, *modules])],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_the_front_door_loads_nothing() -> None:
    """`import ampd` gives the version and its names; the modules behind them come when they are used."""
    look = "import sys, ampd; print(*(name for name in sys.modules if name.startswith('ampd.')))"

    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.split() == []


def test_the_sdk_has_what_it_says() -> None:
    """Every name that it offers can be had, those that need torch too; any other is an AttributeError."""
    from ampd import sdk

    assert [name for name in sdk.__all__ if getattr(sdk, name) is None] == []
    with pytest.raises(AttributeError, match=r"ampd\.sdk has no 'nonsense'"):
        sdk.nonsense  # noqa: B018  # that it is not there is the point


def called_names(path: Path) -> set[str]:
    """The plain names that a file calls: `open(...)`, not `path.open(...)`."""
    calls = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)}


def attributes(path: Path) -> set[str]:
    """The attributes that a file uses, "torch.load" with the name that they are of."""
    nodes = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)]
    qualified = {f"{node.value.id}.{node.attr}" for node in nodes if isinstance(node.value, ast.Name)}
    return {node.attr for node in nodes} | qualified


@pytest.mark.parametrize("path", [p for p in EVERYTHING if str(p) not in ATTACKERS | PEERS], ids=str)
def test_nothing_runs_code_from_data(path: Path) -> None:
    """No pickle in any of its shapes, no eval, no yaml: neither from files nor from sockets."""
    assert {name.split(".")[0] for name, _line in imports(parsed(path))} & CODE_RUNNERS == set()
    assert called_names(path) & {"eval", "exec", "__import__"} == set()
    assert attributes(path) & {"recv_pyobj", "send_pyobj", "torch.load", "torch.save", "os.system"} == set()


@pytest.mark.parametrize("path", sources("ampd", "plugins"), ids=str)
def test_no_queue_is_read_with_a_timeout(path: Path) -> None:
    """CPython's SimpleQueue.get(timeout) waits for ever where the time is up before the wait begins."""
    waits = [
        node.lineno
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        if any(keyword.arg == "timeout" for keyword in node.keywords)
    ]

    assert waits == []


def test_the_top_level_holds_what_it_should() -> None:
    """Dot-files apart, nothing lies at the top of the repository that is not meant to."""
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}

    assert {name for name in names - TOP_LEVEL - IGNORED if not name.endswith(".egg-info")} == set()
