"""The asking side: one command, one final answer, or an error that says which of the few things went wrong.

It never hangs, because each way of getting no answer is looked for by itself. A plain connect to the address tells a
dead daemon from a live one at once, where ZeroMQ would retry in silence; the socket's monitor tells being refused at
the door, and a peer that takes the connection but does not speak (`line`); a deadline covers the rest. The distinction that
matters to the caller is whether the request can have been carried out: until the handshake nothing has left this
process, so then nothing was changed; after it, a missing answer means *unknown*, and the same request may be asked
again under the same id.
"""

from __future__ import annotations

import contextlib
import os
import time

import msgspec
import zmq

from ampd.control import line
from ampd.control.keyring import Credentials
from ampd.control.line import Line
from ampd.core.protocol import ROLE_OF, VERSION, AnyCommand, Code, Done, Refusal, Reply, Request, Role
from ampd.errors import CommandError, ExitCode

_EXIT_CODES = {Code.CONFLICT: ExitCode.CONFLICT, Code.FORBIDDEN: ExitCode.UNREACHABLE}


def new_request_id() -> str:
    """A UUIDv7 in hex: sorts by time, and 74 random bits tell any two apart."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10)) >> 6
    bits = milliseconds << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & (1 << 62) - 1
    return f"{bits:032x}"


class Client:
    """A connection for one command at a time, to an ipc:// or tcp:// address. One thread only."""

    def __init__(self, endpoint: str, credentials: Credentials | None = None) -> None:
        self._line = line.to(endpoint, credentials)

    def ask(self, command: AnyCommand, timeout: float, *, request_id: str = "") -> Done:
        """The answer to a command within `timeout` seconds; raises CommandError for anything else.

        `request_id` is that of an earlier attempt, to be told what became of it instead of doing it twice.
        """
        deadline = time.monotonic() + timeout
        address = self._line.reach(timeout)
        request = Request(v=VERSION, id=request_id or new_request_id(), command=command)
        reply = _Call(self._line, request, timeout).answer(address, deadline)
        if isinstance(reply, Refusal):
            raise _refused(reply)
        return reply


class _Call:
    """One request on its own context, which is gone when the answer is there."""

    def __init__(self, line: Line, request: Request, timeout: float) -> None:
        self._line = line
        self._request = request
        self._timeout = timeout
        self._is_admitted = False

    def answer(self, address: str, deadline: float) -> Reply:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            socket = context.socket(zmq.DEALER)
            monitor = line.watch(context, socket)
            self._line.prepare(socket)
            socket.connect(address)
            with contextlib.suppress(zmq.Again):  # the handshake has failed by now: the monitor says why
                socket.send(msgspec.json.encode(self._request), zmq.NOBLOCK)
            return self._wait(socket, monitor, deadline)
        finally:
            context.destroy(linger=0)

    def _wait(self, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes], deadline: float) -> Reply:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(max(1, round(1000 * left))))
            if socket in ready:  # before the monitor: a daemon that stops answers first and leaves then
                reply = self._read(socket.recv())
                if reply is not None:
                    return reply
            elif monitor in ready:
                self._notice(*line.noticed(monitor))
        raise self._late()

    def _read(self, frame: bytes) -> Reply | None:
        """The reply, or None for one to another request."""
        try:
            reply: Reply = msgspec.json.decode(frame, type=Reply)
        except msgspec.DecodeError as error:
            raise CommandError(
                f"the daemon's answer cannot be read: {error}", code="BAD_REPLY", exit_code=ExitCode.UNREACHABLE,
                hint="use the ampctl that was installed with the daemon",
            ) from None  # fmt: skip
        return reply if reply.id in (self._request.id, "") else None

    def _notice(self, event: int, value: int) -> None:
        """Take in what the monitor saw; raises CommandError where no answer can come any more."""
        if event == line.ADMITTED:
            self._is_admitted = True
        elif event != line.LEFT:
            raise self._line.failure(event, value)
        elif self._is_admitted:
            raise self._gone()

    def _late(self) -> CommandError:
        if not self._is_admitted:
            return line.mute(self._line, f"did not speak within {self._timeout:g} s")
        return self._unknown(f"no answer within {self._timeout:g} s")

    def _gone(self) -> CommandError:
        if ROLE_OF[type(self._request.command)] is Role.VIEW:
            return CommandError(
                "the daemon ended before it answered", code="NOT_RUNNING", exit_code=ExitCode.NOT_RUNNING
            )
        return self._unknown("the daemon ended before it answered")

    def _unknown(self, what: str) -> CommandError:
        return CommandError(
            f"{what}: the outcome is unknown", code="TIMED_OUT", exit_code=ExitCode.TIMED_OUT,
            hint=f"ask again, which does nothing twice: the same command with --request-id {self._request.id}",
        )  # fmt: skip


def _refused(refusal: Refusal) -> CommandError:
    hint = refusal.hint or ("the same command may succeed later" if refusal.retryable else "")
    exit_code = _EXIT_CODES.get(refusal.code, ExitCode.REJECTED)
    return CommandError(refusal.message, code=refusal.code.value, exit_code=exit_code, hint=hint)
