"""The real worker with a workload that hangs where it is told to, once for each time: `--hang KIND@NUMBER`.

`python -m tests.story.hanging_worker --hang gil@30 --hang stop@60 --slow init@2 ...` hangs in the 30th and then, in the
next worker, in the 60th window that it runs (or, in the loader, draws). What has hung is noted in the job directory, with
its moment.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ampd_digits.workload import Digits
from torch import Tensor

from ampd import worker
from ampd.control.lifeline import WORKER_OF
from ampd.sdk import MicroBatch

FOR_EVER = 3600


def spin() -> None:
    """A loop in Python, which lets other threads run."""
    while True:
        pass


def hold_the_interpreter(seconds: int = FOR_EVER) -> None:
    """A C call that keeps the interpreter: PyDLL, where CDLL would let go of it. The signal for stacks interrupts it."""
    while seconds:
        seconds = ctypes.PyDLL(None).sleep(seconds)


def stop() -> None:
    """As an operator's SIGSTOP, or a freezer's."""
    os.kill(os.getpid(), signal.SIGSTOP)


HANGS: Mapping[str, Callable[[], None]] = {
    "loop": spin,
    "gil": hold_the_interpreter,
    "stop": stop,
    "loader": lambda: time.sleep(FOR_EVER),
}


class Script:
    """What is to go wrong, each once over all workers of the job."""

    def __init__(self, hangs: list[str], slow: list[str]) -> None:
        self._hangs = [(place, *word.partition("@")[::2]) for place, word in enumerate(hangs)]
        self.slow = {name: int(seconds) for name, _, seconds in (word.partition("@") for word in slow)}
        self._directory = Path(os.environ[WORKER_OF])

    def meet(self, number: int, *, in_loader: bool) -> None:
        """Hang here where it is told, and has not happened yet: the words come in their order."""
        for place, kind, at in self._hangs:
            note = self._directory / f"hung-{place}"
            if not note.exists():
                if (kind == "loader") == in_loader and number >= int(at):
                    note.write_text(repr(time.time()))
                    HANGS[kind]()
                return


class Hanging(Digits):
    """The digits, as the script has them."""

    script: Script
    drawn = computed = 0

    def windows(self, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
        for window in super().windows(epoch, start):
            Hanging.drawn += 1
            self.script.meet(Hanging.drawn, in_loader=True)
            yield window

    def loss(self, micro_batch: MicroBatch) -> Tensor:
        Hanging.computed += 1
        if Hanging.computed == 1:
            hold_the_interpreter(self.script.slow.get("compile", 0))
        self.script.meet(Hanging.computed // self._accumulate, in_loader=False)
        return super().loss(micro_batch)

    def evaluate(self) -> Mapping[str, float]:
        hold_the_interpreter(self.script.slow.get("evaluation", 0))
        return super().evaluate()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hang", action="append", default=[])
    parser.add_argument("--slow", action="append", default=[])
    given, rest = parser.parse_known_args()
    Hanging.script = Script(given.hang, given.slow)
    vars(sys.modules[Digits.__module__])["Digits"] = Hanging  # the plugin's build makes this one
    time.sleep(Hanging.script.slow.get("init", 0))  # before the worker has said a word
    sys.argv[1:] = rest
    worker.main()


if __name__ == "__main__":
    main()
