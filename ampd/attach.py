"""`ampd attach`: the same supervisor, for a program that trains in its own loop and has started it as its child.

Nothing is spawned: the worker is the parent, which speaks on the link like any worker. It is watched through a pidfd,
and not by a parent-death signal, because that goes out when the *thread* ends that started us, and a notebook's
threads come and go. Letting go of it is all that "killing" it can mean. The job directory is a temporary one: history
is kept for as long as the program runs, and a program that is run again begins a history of its own.

The program gives the configuration on standard input, and reads one line from standard output (`core.attachment`).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import BinaryIO

import msgspec

from ampd.child import Process
from ampd.core.attachment import Answer, Attached, NotAttached
from ampd.core.change import override
from ampd.core.config import JobConfig
from ampd.core.view import JobView
from ampd.daemon import Daemon
from ampd.errors import AmpdError, ConfigError
from ampd.job_directory import JobDirectory


def run(parent: int, given: BinaryIO, out: BinaryIO) -> int:
    """Serve the process `parent` until it ends or takes its leave; returns our exit code."""
    try:
        with tempfile.TemporaryDirectory(prefix="ampd-attached-") as directory, open(os.devnull, "w") as null:
            config = override(msgspec.json.decode(given.read(), type=JobConfig), {"job.directory": directory})
            daemon = Daemon(
                config, reread=_no_job_file, workers=Adopting(parent, out), is_attached=True, out=null, err=null
            )  # fmt: skip
            return daemon.run().code
    except AmpdError as error:
        field, hint = (error.field, error.hint) if isinstance(error, ConfigError) else ("", "")
        _say(out, NotAttached(message=str(error), exit_code=int(error.exit_code), field=field, hint=hint))
        return int(error.exit_code)


class Adopting:
    """The one worker that is there already; it is told where we are when we would start one."""

    def __init__(self, parent: int, out: BinaryIO) -> None:
        self._parent = parent
        self._out = out

    async def next(self, view: JobView, link: str, directory: JobDirectory) -> Process:
        """Adopt the parent; raises ProcessLookupError where it is gone."""
        adopted = Adopted(self._parent)
        _say(self._out, Attached(link=link, endpoint=view.endpoint, http=view.http, pid=os.getpid()))
        return adopted


class Adopted:
    """A process that is not our child."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._gone = asyncio.Event()
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._gone.set)

    async def wait(self) -> int:
        """Until it is gone or was let go of; its exit code is for its own parent, so it is 0 here."""
        await self._gone.wait()
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        return 0

    def kill(self, *, gently: bool) -> None:
        """Let go of it: whether it ends is not ours to say."""
        self._gone.set()

    def last_lines(self) -> tuple[str, ...]:
        """None: what it prints goes elsewhere."""
        return ()


def _say(out: BinaryIO, answer: Answer) -> None:
    out.write(msgspec.json.encode(answer) + b"\n")
    out.flush()


def _no_job_file() -> JobConfig:
    raise ConfigError("an attached daemon has no job file to read again", hint="use ampctl set")
