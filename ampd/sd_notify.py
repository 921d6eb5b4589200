"""What systemd is told of a daemon (sd_notify(3)): ready, a sentence, stopping, and a watchdog that means progress.

Datagrams to the socket in NOTIFY_SOCKET; without one, nothing. The watchdog is fed while the worker is within its
budget (`core.watch`, the one judgement of what a hang is), not by a timer: a timer in this process goes on while the
worker hangs. A worker over its budget is killed and replaced by the supervisor; systemd acts where that does not help,
because the process does not die, or because it is the supervisor that hangs.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ampd.core.lifecycle import JobState
from ampd.core.view import JobView

_READY = frozenset({JobState.RUNNING, JobState.PAUSED, JobState.COMPLETED, JobState.STOPPED})


class ServiceManager:
    """The service manager's end of a datagram socket; says each thing once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
        self._said: set[str] = set()
        self._status = ""

    def tell(self, view: JobView) -> None:
        """Say what is new; without a service manager, at no cost: it is called with all that happens."""
        if not self._address:
            return
        if view.state in _READY:
            self._say_once("READY=1")
        if view.state is JobState.STOPPING or view.state is JobState.FAILED:
            self._say_once("STOPPING=1")
        status = sentence(view)
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def feed_watchdog(self, view: JobView) -> None:
        """To be called a few times per watchdog interval; feeds it where the job is as it should be."""
        if view.standing is None or not view.standing.is_overdue:
            self._send("WATCHDOG=1")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._send(line)

    def _send(self, line: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.setblocking(False)
            try:
                manager.sendto(line.encode(), self._address)
            except OSError:
                self._said.discard(line)  # said again with the next change


def sentence(view: JobView) -> str:
    """The state of a job for `systemctl status`."""
    snapshot = view.snapshot
    if snapshot is None or view.state.is_final:
        return f"{view.state}: {view.state_reason}" if view.state_reason else str(view.state)
    loss = f", loss {snapshot.loss:.4f}" if snapshot.loss is not None else ""
    return f"{view.state}: window {snapshot.window} of {snapshot.total_windows}, {snapshot.precision}{loss}"
