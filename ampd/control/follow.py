"""Following a daemon's events without losing any unnoticed.

A PUB socket drops for whoever reads too slowly, and says nothing. So the numbers are what is relied on: events have
no holes within a boot, and a heartbeat carries the last number, so that a lost tail shows too. A follower that sees a
hole asks for the missing ones over the control socket; what the daemon no longer keeps is told as `Lost`, and that it
was started again as `NewBoot`, because the numbers then begin anew. So whoever reads this sees every event once, in
order, or is told which are missing.

The follower outlives its daemon: ZeroMQ connects again by itself, to the same address.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import zmq

from ampd.control import codec, line
from ampd.control.client import Client
from ampd.control.endpoints import Presence
from ampd.control.keyring import Credentials
from ampd.core.protocol import Code, Done, Event, Events, Heartbeat
from ampd.errors import CommandError

SILENCE_SECONDS = 3.0
"""A daemon sends a heartbeat each second; after three without one it is stopped, hung or gone."""
_ANSWER_SECONDS = 10.0
_PASSING = {"NOT_RUNNING", "TIMED_OUT", "UNREACHABLE"}
"""What keeps a question from being answered now, and may be over when it is asked again."""


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Events `first` to `last` of a boot happened, and are kept nowhere any more."""

    boot: str
    first: int
    last: int


class NewBoot(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon was started again. What boot `before` told after its event `last` is not known."""

    boot: str
    before: str
    last: int


class Silent(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was heard for SILENCE_SECONDS; told once."""

    presence: Presence


Told = Event | Lost | NewBoot | Silent


class Follower:
    """Everything that a daemon tells, from now on or after event `since`; one thread only."""

    def __init__(
        self, endpoint: str, credentials: Credentials | None = None, *, since: int | None = None
    ) -> None:
        self._line = line.to(endpoint, credentials)
        self._client = Client(endpoint, credentials)
        self._since = since
        self._boot = ""
        self._last = 0

    def follow(self) -> Iterator[Told]:
        """Yield for ever; raises CommandError where this daemon does not answer to us, or never told `since`."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            socket = context.socket(zmq.SUB)
            monitor = line.watch(context, socket)
            socket.subscribe(b"")
            self._line.prepare(socket)
            socket.connect(self._line.events())
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            yield from self._listen(socket, monitor, poller)
        finally:
            context.destroy(linger=0)

    def _listen(
        self, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes], poller: zmq.Poller
    ) -> Iterator[Told]:
        is_silent = False
        while True:
            ready = dict(poller.poll(round(1000 * SILENCE_SECONDS)))
            if monitor in ready:
                self._notice(*line.noticed(monitor))
            if socket in ready:
                is_silent = False
                yield from self.take(codec.decode_told(socket.recv_multipart()))
            elif not ready and not is_silent:
                is_silent = True
                yield Silent(presence=self._line.presence())

    def _notice(self, event: int, value: int) -> None:
        """Raise CommandError where the door is closed to us; anything else may mend itself while ZeroMQ tries again.

        Over TCP being cut off in the first handshake is a wrong key. Later it is a daemon that ends.
        """
        if event == line.REFUSED or (event == line.CUT and not self._boot and self._line.is_keyed):
            raise self._line.failure(event, value)

    def take(self, told: Event | Heartbeat) -> Iterator[Told]:
        """What one message tells; asks for what is missing before it."""
        newest = told.last if isinstance(told, Heartbeat) else told.seq
        if told.boot != self._boot:
            yield from self._turn(told.boot, newest if isinstance(told, Heartbeat) else newest - 1)
        if isinstance(told, Event) and told.seq == self._last + 1:
            self._last = told.seq
            yield told
        elif newest > self._last:
            yield from self._mend()

    def _turn(self, boot: str, before: int) -> Iterator[Told]:
        """Another boot than the last one; the first that is seen is followed from `since`, or from where it is."""
        if self._boot:
            yield NewBoot(boot=boot, before=self._boot, last=self._last)
            self._boot, self._last = boot, 0
            return
        self._boot, self._last = boot, before if self._since is None else self._since
        if self._since is not None:
            yield from self._mend()

    def _mend(self) -> Iterator[Told]:
        """Everything after the last event. A daemon that cannot answer now is asked again with the next heartbeat."""
        try:
            while True:
                done = self._ask(Events(since=self._last, boot=self._boot))
                yield from self._keep(done)
                if self._last >= done.result["last"]:
                    return
        except CommandError as error:
            if error.code == Code.COMPACTED:
                yield from self._restart()
            elif error.code not in _PASSING:
                raise

    def _restart(self) -> Iterator[Told]:
        """Go on with the oldest event that is kept, and tell which are not."""
        done = self._ask(Events())
        if done.boot != self._boot:
            yield from self._turn(done.boot, 0)
        yield from self._keep(done)

    def _keep(self, done: Done) -> Iterator[Told]:
        for event in msgspec.convert(done.result["events"], tuple[Event, ...]):
            if event.seq > self._last + 1:
                yield Lost(boot=self._boot, first=self._last + 1, last=event.seq - 1)
            if event.seq > self._last:
                self._last = event.seq
                yield event

    def _ask(self, command: Events) -> Done:
        return self._client.ask(command, _ANSWER_SECONDS)
