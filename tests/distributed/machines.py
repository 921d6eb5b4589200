"""Two machines on this one: network namespaces with a cable between them, each with a host name of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon.daemons import ROOT, Process, Starter
from tests.story.jobs import WORKER

_HOLDER = """
import ctypes, socket, sys
CLONE_NEWUTS, CLONE_NEWNET = 0x04000000, 0x40000000
if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUTS | CLONE_NEWNET):
    sys.exit("not permitted")
socket.sethostname(sys.argv[1])
print("made", flush=True)
sys.stdin.read()
"""
"""Holds a machine for as long as its standard input is open."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A namespace; `prefix` are the words before a command that is to run on it."""

    host: str
    address: str
    prefix: tuple[str, ...]


@contextlib.contextmanager
def machines() -> Iterator[list[Machine]]:
    """gpu1 and gpu2, which reach each other and nothing else; skips where they may not be made."""
    with contextlib.ExitStack() as opened:
        made = [_machine(opened, f"gpu{number}", f"10.77.0.{number}") for number in (1, 2)]
        token = secrets.token_hex(3)
        ends = [f"a{token}", f"b{token}"]
        _run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for machine, end in zip(made, ends, strict=True):
            _run("ip", "link", "set", end, "netns", machine.prefix[2])
            _run(*machine.prefix, "ip", "address", "add", f"{machine.address}/24", "dev", end)
            _run(*machine.prefix, "ip", "link", "set", end, "up")
            _run(*machine.prefix, "ip", "link", "set", "lo", "up")
        yield made


def _machine(opened: contextlib.ExitStack, host: str, address: str) -> Machine:
    holder = opened.enter_context(
        subprocess.Popen(
            [sys.executable, "-c", _HOLDER, host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )
    assert holder.stdout is not None
    if holder.stdout.readline() != b"made\n" or not Path("/usr/bin/nsenter").exists():
        pytest.skip("network namespaces may not be made here")
    prefix = ("nsenter", "--target", str(holder.pid), "--net", "--uts", "--")
    return Machine(host=host, address=address, prefix=prefix)


def _run(*words: str) -> None:
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        pytest.skip(f"network namespaces cannot be joined here: {' '.join(words)}: {ran.stderr.strip()}")


def starter_on(machine: Machine) -> Starter:
    """Starts daemons there."""

    def start(words: Sequence[str], environment: Mapping[str, str], out: Path, err: Path) -> Process:
        command = [*machine.prefix, sys.executable, "-m", "tests.daemon.start", WORKER, *words]
        with out.open("wb") as output, err.open("wb") as errors:
            return subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=errors, env=os.environ | environment, stdin=subprocess.DEVNULL
            )  # fmt: skip

    return start
