"""What `survival` kills: peers forked from a process that has imported their library, and a real `ampd start`.

An import takes longer than fifty saves, and nothing of it is what is measured here. Of ampd the daemon and its worker
are killed at once, and started again by `ampd start`, as an operator would.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.bench.savers import BATCH, BEGINS, LOSSES, LR, MODEL, SEED, Saver, Tell
from tests.daemon.daemons import Daemon, is_alive, until
from tests.story.jobs import DigitsJob

MIDDLE, END = 12, 24
"""Steps of a run that is cut and resumed, of fifty an epoch."""
PATIENCE_SECONDS = 120.0


class Victim(Protocol):
    """One run that saves, from its beginning to its end by SIGKILL."""

    def begins(self) -> None:
        """Wait until a save begins. An AssertionError where the run has ended by itself."""
        ...

    def saved(self) -> int:
        """Wait for the end of a save; its step."""
        ...

    def kill(self) -> int:
        """End it now; the step of the last save that was called done."""
        ...


class Contestant(Protocol):
    """Who is killed."""

    def begin(self, home: Path) -> Victim:
        """A run that saves after every step, in a directory that is empty."""
        ...

    def go_on(self, home: Path) -> int:
        """Start again on what was left, make another step and save it; the step that was loaded, or an error."""
        ...

    def losses(self, home: Path, *, is_cut: bool) -> list[str]:
        """Of the last steps to END; with `is_cut` from a process that resumed at MIDDLE."""
        ...


class Forked:
    """A child that runs a function, which tells numbers through a pipe."""

    def __init__(self, work: Callable[[Tell], None], log: Path) -> None:
        self._told, telling = os.pipe()
        self._last = 0
        self.pid = os.fork()
        if self.pid == 0:
            self._work(work, telling, log)
        os.close(telling)

    def begins(self) -> None:
        """Passes over what else is told."""
        while self._told_next() != BEGINS:
            pass

    def saved(self) -> int:
        """The next save that is done."""
        while (step := self._told_next()) == BEGINS:
            pass
        self._last = step
        return step

    def _told_next(self) -> int:
        ready, _, _ = select.select([self._told], [], [], PATIENCE_SECONDS)
        word = os.read(self._told, 8) if ready else b""
        assert word, "the run ended by itself" if ready else f"nothing saved in {PATIENCE_SECONDS:g} s"
        return int.from_bytes(word, "little")

    def kill(self) -> int:
        """What was told until then counts."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        rest = b"".join(iter(lambda: os.read(self._told, 65536), b""))
        os.close(self._told)
        return max(self._last, *_numbers(rest), 0)

    def ends(self) -> list[int]:
        """Wait for its end; what it told. Raises RuntimeError with the last line of its trouble."""
        numbers = b"".join(iter(lambda: os.read(self._told, 65536), b""))
        os.close(self._told)
        _, status = os.waitpid(self.pid, 0)
        if status:
            raise RuntimeError(f"exit status {status}")
        return _numbers(numbers)

    @staticmethod
    def _work(work: Callable[[Tell], None], telling: int, log: Path) -> None:
        code = 1
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            work(lambda number: _tell(telling, number))
            code = 0
        except BaseException as error:  # noqa: BLE001  # the child's top
            Path(f"{log}.why").write_text(_words(error))
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


def _numbers(told: bytes) -> list[int]:
    return [int.from_bytes(told[at : at + 8], "little") for at in range(0, len(told), 8)]


def _tell(telling: int, number: int) -> None:
    os.write(telling, number.to_bytes(8, "little"))


def _words(error: BaseException) -> str:
    """Its type, and its first line without directories and numbers, which differ from run to run."""
    line = (str(error).strip().splitlines() or [""])[0]
    line = re.sub(r"/[^\s']*/", "", line)
    return f"{type(error).__name__}: {re.sub('[0-9]+', 'N', line)}"[:110]


class Peer:
    """A saver of another library."""

    def __init__(self, saver: Saver) -> None:
        self._saver = saver

    def begin(self, home: Path) -> Victim:
        """Forked from here."""
        (home / "state").mkdir()
        return Forked(lambda tell: self._saver.storm(home / "state", tell), home / "log")

    def go_on(self, home: Path) -> int:
        """Raises RuntimeError in the words of the library."""
        try:
            told = Forked(lambda tell: self._saver.go_on(home / "state", tell), home / "log").ends()
        except RuntimeError as error:
            why = home / "log.why"
            raise RuntimeError(why.read_text() if why.exists() else str(error)) from None
        assert len(told) == 2 and told[1] > told[0], f"it did not go on: {told}"
        return told[0]

    def losses(self, home: Path, *, is_cut: bool) -> list[str]:
        """What the model gave: all in one process, or the last ones in a second."""
        (home / "state").mkdir()

        def train(_tell: Tell) -> None:
            if is_cut:
                self._saver.go_on(home / "state", lambda _step: None, last=END)
            else:
                self._saver.storm(home / "state", lambda _step: None, every=END, last=END)
            (home / "losses").write_text(json.dumps(LOSSES))

        if is_cut:
            Forked(lambda tell: self._saver.storm(home / "state", tell, MIDDLE, MIDDLE), home / "log").ends()
        Forked(train, home / "log").ends()
        losses: list[str] = json.loads((home / "losses").read_text())
        return losses[-(END - MIDDLE) :]


class AmpdJob(DigitsJob):
    """The same training as a job; `every` windows a checkpoint."""

    def __init__(self, home: Path, windows: int = 10**6, every: int = 1) -> None:
        self._every = every
        super().__init__(home, windows)

    def write(self, **sections: str) -> None:
        """The same model, batch and optimizer; the text is the plugin's own."""
        options = "\n".join(f"{name} = {value}" for name, value in MODEL.items())
        super().write(
            job=f'name = "toy"\ndirectory = "{self.directory}"\nwindows = {self.windows}\nseed = {SEED}',
            workload=f'name = "bytegpt"\n[workload.options]\n{options}',
            amp='dtype = "float32"',
            batch=f"size = {BATCH}",
            clip="",
            optim=f'lr = {LR}\nschedule = "constant"',
            device='type = "cpu"\nthreads = 1',
            checkpoint=f"every_windows = {self._every}\nkeep = 2",
        )


class Run:
    """A daemon and its worker."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._count = 0

    def begins(self) -> None:
        """It saves all the time: a window takes less than a save, and each is due."""

    def saved(self) -> int:
        """The window of the next checkpoint."""
        self._count += 1
        self.daemon.hears("checkpoint.saved", self._count)
        return int(self.daemon.said("checkpoint.saved")[self._count - 1]["window"])

    def kill(self) -> int:
        """Both at once: the worker's group, then the daemon."""
        worker = int(self.daemon.said("worker.started")[-1]["pid"])
        os.killpg(worker, signal.SIGKILL)
        self.daemon.process.kill()
        self.daemon.process.wait()
        until("the end of the worker", lambda: not is_alive(worker))
        return int(self.daemon.said("checkpoint.saved")[-1]["window"])


class Ampd:
    """A real `ampd start`."""

    def begin(self, home: Path) -> Run:
        """The first start."""
        return Run(AmpdJob(home).start())

    def go_on(self, home: Path) -> int:
        """The second, until its first checkpoint."""
        run = Run(AmpdJob(home).start())
        try:
            begun = int(run.daemon.hears("worker.became_ready")["window"])
            assert run.saved() > begun, "it did not go on"
        finally:
            run.kill()
        assert not run.daemon.said("checkpoint.set_aside"), "a damaged checkpoint was visible"
        return begun

    def losses(self, home: Path, *, is_cut: bool) -> list[str]:
        """Of losses.jsonl."""
        job = AmpdJob(home, windows=END, every=MIDDLE)
        if is_cut:
            run = Run(job.start())
            assert run.saved() == MIDDLE
            run.kill()
        assert job.start().ends(PATIENCE_SECONDS) == 0
        rows = [json.loads(line) for line in (job.directory / "losses.jsonl").read_text().splitlines()]
        return [float(row["loss"]).hex() for row in rows][MIDDLE:]
