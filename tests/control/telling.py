"""A daemon that tells events, loses some on the way, and answers for those that it keeps."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ampd.control.follow import Follower, Told
from ampd.control.gate import Gate
from ampd.control.server import ControlServer
from ampd.core import past
from ampd.core.objections import Objection
from ampd.core.protocol import HEARTBEAT, Done, Event, Events, Refusal, Reply, Request
from ampd.core.ring import Ring
from tests.control.served import Served


class LossyServer(ControlServer):
    """Sends each event with some luck only; heartbeats always."""

    losing = 0.0
    draw = random.Random(0)

    def _tell(self, name: str, frame: bytes) -> None:
        if name == HEARTBEAT or self.draw.random() >= self.losing:
            super()._tell(name, frame)


class Teller:
    """A control server in `directory` that keeps `kept` events and loses a share of those it sends."""

    def __init__(
        self,
        directory: Path,
        *,
        boot: str = "boot-1",
        losing: float = 0.0,
        kept: int = 100,
        seed: int = 0,
        gate: Gate | None = None,
    ) -> None:
        self.boot = boot
        self.ring = Ring(kept)
        self.asked = 0
        self._lock = threading.Lock()
        self._served = Served(directory, self._answer, kind=LossyServer, boot=boot, gate=gate)
        server = self._served.server
        assert isinstance(server, LossyServer)
        server.losing, server.draw = losing, random.Random(seed)
        self.endpoint = server.endpoint
        self.remote = server.remote

    def __enter__(self) -> Self:
        self._served.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._served.__exit__(kind, error, trace)

    def tell(self, count: int) -> None:
        """So many events happen."""
        for _ in range(count):
            with self._lock:
                event = Event(boot=self.boot, seq=self.ring.last + 1, time=0.0, name="a.happened", fields={})
                self.ring.add(event)
            self._served.publish(event)

    def _answer(self, request: Request) -> Reply:
        assert isinstance(request.command, Events), request
        self.asked += 1
        with self._lock:
            found = past.events(self.ring, self.boot, request.command)
        if isinstance(found, Objection):
            return Refusal(
                id=request.id, boot=self.boot, code=found.code, message=found.message, hint=found.hint
            )
        return Done(id=request.id, boot=self.boot, revision=1, window=0, result=found)


class Following:
    """A follower whose stream is read piece by piece."""

    def __init__(self, endpoint: str, **options: Any) -> None:
        self.stream: Iterator[Told] = Follower(endpoint, **options).follow()
        self.told: list[Told] = []

    def until(self, seq: int, boot: str = "boot-1") -> list[Told]:
        """Everything up to an event."""
        for told in self.stream:
            self.told.append(told)
            if isinstance(told, Event) and (told.boot, told.seq) == (boot, seq):
                break
        return self.told
