"""Replies on their way out: to each client that waits, counted where they refuse, remembered where they may be asked for again."""

from __future__ import annotations

from collections.abc import Sequence

from ampd.core import stimuli as s
from ampd.core.memory import Memory
from ampd.core.protocol import Command, Refusal, Reply
from ampd.core.view import JobView


class Answers:
    """The replies of one daemon; those of actions are in the journal too."""

    def __init__(self, view: JobView) -> None:
        self._view = view
        self._memory = Memory()

    def of(self, request_id: str) -> tuple[Command, Reply] | None:
        """The command of this id and its reply, if it was answered and is remembered."""
        return self._memory.of(request_id)

    def give(
        self, clients: Sequence[object], reply: Reply, kept_for: Command | None = None
    ) -> list[s.AnyInstruction]:
        """Answer; `kept_for` is the command that will get the same reply when it is asked again under the same id."""
        if isinstance(reply, Refusal) and clients:
            refusals = self._view.refusals
            refusals[reply.code] = refusals.get(reply.code, 0) + 1
        if kept_for is not None:
            self._memory.keep(kept_for, reply)
        return [s.Answer(client, reply) for client in clients]
