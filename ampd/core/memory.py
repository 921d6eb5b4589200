"""What was answered, for a client that asks again with the same id because it missed the first reply.

Bounded: the oldest answer is forgotten first. The journal keeps the answers of actions for as long as the job lives;
here are those of commands that change no history (pause, checkpoint) and of refusals.
"""

from __future__ import annotations

from collections import OrderedDict

from ampd.core.protocol import Command, Refusal, Reply

MOST_REMEMBERED = 1024
"""A client asks again within seconds; this is minutes of the busiest script."""


class Memory:
    """The last answers by request id, each with the command that it answered."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[Command, Reply]] = OrderedDict()

    def keep(self, command: Command, reply: Reply) -> None:
        """Remember an answer, unless it is a refusal that may pass by itself: that is judged anew."""
        if isinstance(reply, Refusal) and reply.retryable:
            return
        self._answers[reply.id] = (command, reply)
        if len(self._answers) > MOST_REMEMBERED:
            self._answers.popitem(last=False)

    def of(self, request_id: str) -> tuple[Command, Reply] | None:
        """The command and the answer of an id, if they are remembered."""
        return self._answers.get(request_id)
