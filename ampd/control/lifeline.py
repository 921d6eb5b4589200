"""How a supervisor sees a worker without its help: a pulse in shared memory, stacks on a signal, a mark of origin.

All three hold where the worker's link cannot speak, because its main thread keeps the interpreter, or because it is
stopped, or not there yet:

- The pulse is one word of a file that both map. The step loop writes it (a quarter of a microsecond, no system
  call), so it moves with the loop and with nothing else. A report on the link would wait for the interpreter, and
  that of a long C call would come when the call is over.
- On STACKS_SIGNAL the interpreter's own C handler writes the stack of every thread, whoever holds the interpreter.
- WORKER_OF in the environment names the job directory, from the moment of exec: a daemon that is killed before it
  has written down its new worker still leaves one that the next daemon knows.
"""

from __future__ import annotations

import faulthandler
import itertools
import mmap
import os
import signal
import struct
from collections.abc import Mapping
from pathlib import Path

from ampd.control.endpoints import PULSE
from ampd.core.phase import Phase, Pulse
from ampd.errors import LinkError

WORKER_OF = "AMPD_WORKER_OF"
"""The environment variable that holds a worker's job directory."""
STACKS = "stacks.log"
"""The file in the job directory that stacks are appended to."""
STACKS_SIGNAL = signal.SIGUSR2

_PHASES = tuple(Phase)
_WORD = struct.Struct(
    "<Q"
)  # beats * 256 + waiting * 128 + phase: aligned, so that it is never seen half written
_WAITING = 0x80
_MOST_RANKS = 1024  # on a node
_BYTES = _MOST_RANKS * _WORD.size


class PulsePage:
    """The shared words, one for each rank. The supervisor makes and reads them, a rank opens and writes its own; one thread each."""

    def __init__(self, memory: mmap.mmap, rank: int = 0) -> None:
        self._memory = memory
        self._at = rank * _WORD.size
        self._beats = 0
        self._phase = 0

    @classmethod
    def make(cls, directory: Path) -> PulsePage:
        """A new one in a runtime directory; what an earlier daemon left is not touched, its worker may still write."""
        path = directory / PULSE
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, _BYTES)  # a hole would be a SIGBUS on a disk that is full
            return cls(mmap.mmap(file, _BYTES))
        finally:
            os.close(file)

    @classmethod
    def open(cls, link: str, rank: int = 0) -> PulsePage:
        """The one beside the socket of a link; raises LinkError where it is not there."""
        path = Path(link.removeprefix("ipc://")).with_name(PULSE)
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise LinkError(f"the pulse {path} cannot be opened: {error.strerror}") from None
        try:
            return cls(mmap.mmap(file, _BYTES), rank)
        finally:
            os.close(file)

    def declare(self, phase: Phase) -> None:
        """Say that this phase begins, or goes on well."""
        self._beats += 1
        self._phase = _PHASES.index(phase)
        self.wait(False)

    def wait(self, is_waiting: bool) -> None:
        """Say that from here on this rank waits for others, or no more."""
        word = self._beats << 8 | _WAITING * is_waiting | self._phase
        _WORD.pack_into(self._memory, self._at, word)

    def withdraw(self) -> None:
        """Say that this rank leaves, and is not to be missed."""
        _WORD.pack_into(self._memory, self._at, 0)

    def has_left(self, rank: int) -> bool:
        """Whether a rank has said so, or has not begun."""
        (word,) = _WORD.unpack_from(self._memory, rank * _WORD.size)
        return not word

    def read(self) -> Pulse:
        """What the first rank declared last."""
        return _pulse_of(*_WORD.unpack_from(self._memory, 0))

    def read_peers(self) -> tuple[Pulse, ...]:
        """The same of the others, up to the first that has declared nothing yet."""
        words = (word for (word,) in _WORD.iter_unpack(memoryview(self._memory)[_WORD.size :]))
        return tuple(map(_pulse_of, itertools.takewhile(bool, words)))

    def clear(self) -> None:
        """Forget the worker before; for the supervisor, while none runs."""
        self._memory[:] = bytes(_BYTES)

    def close(self) -> None:
        """Let go of the memory; may be called twice."""
        self._memory.close()


def _pulse_of(word: int) -> Pulse:
    return Pulse(_PHASES[word & (_WAITING - 1)], word >> 8, bool(word & _WAITING))


def answer_stacks_signal(environment: Mapping[str, str]) -> None:
    """Write all stacks to the job's stacks file on STACKS_SIGNAL from now on, and to standard error before a crash."""
    faulthandler.enable()
    directory = environment.get(WORKER_OF)
    if directory is None:
        faulthandler.register(STACKS_SIGNAL)
        return
    file = (Path(directory) / STACKS).open("ab", buffering=0)  # open for the life of the process
    faulthandler.register(STACKS_SIGNAL, file=file)
