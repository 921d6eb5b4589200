"""The daemon's control socket: requests in, one reply to each; events out to whoever listens.

ROUTER for requests (a reply goes back to its peer, minutes later if need be), XPUB for events. Nothing here decides:
a request that can be read and that its peer may make is handed to the function given to `serve`, which answers
through `reply` when it is true. What cannot be read, or may not be asked, is answered here.

No call waits for a peer. A reply to one that has left, or that reads nothing, is dropped: it can ask again with the
same id. Events are dropped for a slow subscriber, which sees the hole in their numbers, or in the number of the last
event that each new subscriber is told at once, and all of them every second. The context is our own, not
libzmq's global one, because a context has one door (`zap`), and two servers in a process need two.

TCP, where the job file asks for it, is a second bind of the same two sockets: libzmq copies options at the bind, so
that whoever comes by TCP meets CURVE and a short patience, and local peers meet neither. It has an I/O thread of its
own: whoever floods the port keeps that thread busy with handshakes, and local peers do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from ampd.control import codec, tcp, zap
from ampd.control.endpoints import CONTROL, EVENTS
from ampd.control.gate import Gate
from ampd.control.pump import Pump
from ampd.control.sockets import Claim, claim
from ampd.core.protocol import (
    HEARTBEAT,
    MAX_REQUEST_BYTES,
    ROLE_OF,
    Code,
    Event,
    Heartbeat,
    Refusal,
    Reply,
    Request,
    Role,
)  # fmt: skip
from ampd.errors import ConfigError

_MAX_FRAME_BYTES = 4 * MAX_REQUEST_BYTES
"""Up to here a request is answered TOO_LARGE; beyond, libzmq drops the connection before it takes the memory."""
_QUEUED_REQUESTS = 100  # per peer, inside libzmq; then the peer's own send waits
_QUEUED_REPLIES = 1000  # per peer; then replies to it are dropped
_QUEUED_EVENTS = 10000  # per subscriber; then events are dropped for it
_LAST_WORDS_MILLISECONDS = 250  # what close waits at most for a peer that does not read
_HANDSHAKE_MILLISECONDS = 10000  # for a local peer that connects and says nothing
_REMOTE_HANDSHAKE_MILLISECONDS = 3000  # for one from anywhere, which holds a file descriptor so long
_REMOTE_HEARTBEAT_MILLISECONDS = 10000  # so that a peer whose machine is gone is noticed, and its place freed
_REMOTE_SILENCE_MILLISECONDS = 30000
_LOCAL_THREAD, _REMOTE_THREAD = 1, 2  # masks of libzmq's I/O threads
_BEAT_SECONDS = 1.0
_SUBSCRIBES = b"\x01"  # how a message of XPUB begins that tells of a subscription


class Peer(msgspec.Struct, frozen=True):
    """Who asked: `identity` is where the reply goes, `author` the name for the record ("alice", "uid:1000").

    `key` is what one from elsewhere has proved to have.
    """

    identity: bytes
    role: Role
    author: str
    key: str = ""


Handle = Callable[[Peer, Request], None]


class ControlServer:
    """The sockets of a daemon, from `bind` to `close`; the event loop's thread only."""

    def __init__(self, claimed: Claim, boot: str, group: str, gate: Gate | None) -> None:
        self.endpoint = f"ipc://{claimed.directory / CONTROL}"
        self.remote = ""
        self._claim = claimed
        self._boot = boot
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=2 if gate else 1)
        self._gate = gate
        self._find = gate.allowed.find if gate else zap.no_keys
        self._door = zap.Door(self._context, functools.partial(zap.role_of, group=group), self._find)
        self._router = self._context.socket(zmq.ROUTER)
        self._publisher = self._context.socket(zmq.XPUB)
        self._requests = Pump(self._router, self._receive)
        self._subscriptions = Pump(self._publisher, self._welcome)
        self._last_event = 0
        self._handle: Handle | None = None
        self._closed = asyncio.Event()

    @classmethod
    def bind(cls, directory: Path, *, boot: str, group: str = "", gate: Gate | None = None) -> ControlServer:
        """Listen in `directory`; raises JobConflictError where a daemon has it, ConfigError where it cannot be used."""
        claimed = claim(directory, group=group)
        server = cls(claimed, boot, group, gate)
        try:
            server._listen()
        except BaseException:
            server.close()
            raise
        return server

    async def serve(self, handle: Handle) -> None:
        """Give every good request to `handle`, until `close`."""
        self._handle = handle
        for part in (self._door, self._requests, self._subscriptions):
            part.start()
        while not self._closed.is_set():
            self._beat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), _BEAT_SECONDS)

    def reply(self, peer: Peer, reply: Reply) -> None:
        """Answer a peer; never waits, and drops the reply where the peer has left or does not read."""
        if self._router.closed:
            return
        try:
            self._router.send_multipart([peer.identity, codec.encode_reply(reply)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
        self._requests.poke()

    def publish(self, event: Event) -> None:
        """Tell every subscriber; never waits."""
        self._last_event = event.seq
        self._tell(event.name, codec.encode_event(event))

    def close(self) -> None:
        """Hand what is queued to the kernel (a last reply must not be lost to our exit), then let go of everything."""
        if self._router.closed:
            return
        self._requests.stop()
        self._subscriptions.stop()
        self._door.close()
        self._router.close(linger=_LAST_WORDS_MILLISECONDS)
        self._publisher.close(linger=_LAST_WORDS_MILLISECONDS)
        self._end_context()
        self._claim.release()
        self._closed.set()

    def _end_context(self) -> None:
        """Wait until the kernel has the last words, but not for ever: libzmq may, for a peer that read nothing and left."""
        ending = threading.Thread(target=self._context.term, name="zmq-term", daemon=True)
        ending.start()
        ending.join(2 * _LAST_WORDS_MILLISECONDS / 1000)

    def _beat(self) -> None:
        heartbeat = Heartbeat(boot=self._boot, last=self._last_event, time=time.time())
        self._tell(HEARTBEAT, codec.encode_heartbeat(heartbeat))

    def _welcome(self, frames: list[zmq.Frame]) -> None:
        """Tell a new subscriber where the events are; the others may hear it too."""
        if frames[0].bytes.startswith(_SUBSCRIBES):
            self._beat()

    def _tell(self, name: str, frame: bytes) -> None:
        if not self._publisher.closed:
            self._publisher.send_multipart([name.encode(), frame], zmq.NOBLOCK)
            self._subscriptions.poke()

    def _listen(self) -> None:
        self._door.open()
        self._router.router_mandatory = 1  # a vanished peer is an error that we see, and choose to ignore
        self._router.maxmsgsize = _MAX_FRAME_BYTES
        self._router.rcvhwm, self._router.sndhwm = _QUEUED_REQUESTS, _QUEUED_REPLIES
        self._publisher.maxmsgsize = 1024  # subscriptions only
        self._publisher.sndhwm = _QUEUED_EVENTS
        self._publisher.xpub_verbose = 1  # every subscription is told to us, not only the first of its name
        for socket, name in ((self._router, CONTROL), (self._publisher, EVENTS)):
            socket.zap_domain = zap.DOMAIN
            socket.handshake_ivl = _HANDSHAKE_MILLISECONDS
            socket.affinity = _LOCAL_THREAD
            listener = self._claim.listen(name, shared=True)
            socket.use_fd = listener.detach()
            socket.bind(f"ipc://{self._claim.directory / name}")
        if self._gate is not None:
            self._listen_remotely(self._gate)

    def _listen_remotely(self, gate: Gate) -> None:
        where, *listeners = tcp.listen(gate.where)
        self.remote = where.address
        for socket, listener in zip((self._router, self._publisher), listeners, strict=True):
            socket.curve_server = 1
            socket.curve_secretkey = gate.own.secret.encode()
            socket.handshake_ivl = _REMOTE_HANDSHAKE_MILLISECONDS
            socket.heartbeat_ivl = _REMOTE_HEARTBEAT_MILLISECONDS
            socket.heartbeat_timeout = _REMOTE_SILENCE_MILLISECONDS
            socket.affinity = _REMOTE_THREAD
            socket.use_fd = listener.detach()
            socket.bind("tcp://127.0.0.1:*")  # libzmq takes the address from the socket that it is given

    def _receive(self, frames: list[zmq.Frame]) -> None:
        identity, *parts = frames
        peer = _peer(identity.bytes, parts[0])
        try:
            request = _read(parts)
            peer = self._as_it_is_now(peer, request)
            _admit(peer, request)
        except codec.RequestError as error:
            self.reply(peer, error.as_refusal(self._boot))
            return
        self._hand_over(peer, request)

    def _as_it_is_now(self, peer: Peer, request: Request) -> Peer:
        """A key may have been removed, or have got another role, since its peer connected."""
        if not peer.key:
            return peer
        try:
            found, trouble = self._find(peer.key), "is no longer in the list of allowed keys"
        except ConfigError as error:
            found, trouble = None, f"cannot be looked up: {error}"
        if found is None:
            raise codec.RequestError(
                Code.FORBIDDEN, f"the key {peer.key} of {peer.author} {trouble}",
                hint="ask whoever keeps the daemon's keys", request_id=request.id,
            )  # fmt: skip
        author, role = found
        return msgspec.structs.replace(peer, author=author, role=role)

    def _hand_over(self, peer: Peer, request: Request) -> None:
        assert self._handle is not None, "requests are taken in by serve only"
        try:
            self._handle(peer, request)
        except Exception as bug:  # noqa: BLE001  # a request's top: one that meets a bug must not end the others
            self.reply(peer, _internal(request, self._boot, bug))
            context: dict[str, Any] = {
                "message": f"command {type(request.command).__name__} failed",
                "exception": bug,
            }
            asyncio.get_running_loop().call_exception_handler(context)


def _peer(identity: bytes, frame: zmq.Frame) -> Peer:
    return Peer(identity, *zap.read_user_id(str(frame["User-Id"])))


def _read(parts: list[zmq.Frame]) -> Request:
    if len(parts) != 1:
        raise codec.RequestError(
            Code.BAD_FRAME, f"the message has {len(parts)} frames; a request is one",
            hint="use a DEALER socket and send no empty delimiter", request_id=_id_in(parts[-1].bytes),
        )  # fmt: skip
    return codec.decode_request(parts[0].bytes)


def _id_in(frame: bytes) -> str:
    try:
        return codec.decode_request(frame).id
    except codec.RequestError as error:
        return error.request_id


def _admit(peer: Peer, request: Request) -> None:
    needed = ROLE_OF[type(request.command)]
    if peer.role < needed:
        raise codec.RequestError(
            Code.FORBIDDEN,
            f"{peer.author} has the role {peer.role.name.lower()}; this needs {needed.name.lower()}",
            hint="ask the user that runs the daemon, or root", request_id=request.id,
        )  # fmt: skip


def _internal(request: Request, boot: str, bug: Exception) -> Refusal:
    message = f"the daemon failed at this command: {type(bug).__name__}: {bug}"
    return Refusal(id=request.id, boot=boot, code=Code.INTERNAL, message=message, hint="see the daemon's log")
