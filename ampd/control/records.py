"""The lines of the journal, and what they amount to: pure, so that it holds for every order of lines that can be.

Most lines are worth something for a moment only. That a change was accepted says nothing any more once it was applied;
and the answer to a change that was applied is not stored but made again from what was applied, so that it can be given
for as long as the job lives. Hence an `Account`, which is all that the lines say together, has a shortest list of
lines that say the same, and a journal can be rewritten as that list (`Account.records`) at any time.

Every applied action stays. A job whose checkpoints are all damaged begins again at its first window and repeats each
of them, and history and rollback go back to the first revision. What is bounded is what helps nobody for long:
refusals are remembered by number. One that is forgotten may be carried out when it is asked for again, which is no
second time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import msgspec

from ampd.core import replies
from ampd.core.change import Difference
from ampd.core.history import Revision, revision_of
from ampd.core.messages import Act, AppliedAction, Asked
from ampd.core.protocol import Refusal, Reply
from ampd.core.watched import Watched, is_awaited

MOST_REFUSALS = 10_000
"""A client asks again within seconds; this many refusals take minutes of a storm."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", forbid_unknown_fields=True):
    """A line of the journal; `time` is in Unix seconds."""

    time: float


class Accepted(Entry, frozen=True, tag="accepted"):
    """An action was promised to its author."""

    request_id: str
    action: Asked
    author: str = ""
    reason: str = ""


class Applied(Entry, frozen=True, tag="applied"):
    """An action took effect and moved `differences`; `boot` is that of the daemon which answered, "" where nobody asked.

    `concluded` is the same of whoever asked for a trial that this action ended. `reply` is in lines of an earlier form, which held the whole answer.
    """

    applied: AppliedAction
    differences: tuple[Difference, ...] = ()
    boot: str = ""
    concluded: str = ""
    reply: Reply | None = None


class Refused(Entry, frozen=True, tag="refused"):
    """An accepted action could not be carried out, and changed nothing."""

    reply: Refusal


Record = Accepted | Applied | Refused


class Account:
    """What some records amount to; one more is taken in by `enter`."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._accepted: dict[str, Accepted] = {}
        self._applied: dict[int, Applied] = {}
        self._answered: dict[str, int] = {}
        self._refused: OrderedDict[str, Refused] = OrderedDict()
        for record in records:
            self.enter(record)

    def __len__(self) -> int:
        """How many records say it all."""
        return len(self._applied) + len(self._refused) + len(self._accepted)

    def enter(self, record: Record) -> None:
        """Take in the next record."""
        match record:
            case Accepted():
                self._accepted[record.request_id] = record
            case Applied():
                self._enter_applied(record)
            case Refused():
                self._accepted.pop(record.reply.id, None)
                self._refused[record.reply.id] = record
                self._refused.move_to_end(record.reply.id)
                if len(self._refused) > MOST_REFUSALS:
                    self._refused.popitem(last=False)

    def records(self) -> Iterator[Record]:
        """The fewest records that amount to the same."""
        yield from (self._applied[seq] for seq in sorted(self._applied))
        yield from self._refused.values()
        yield from self._accepted.values()

    def applied(self) -> tuple[AppliedAction, ...]:
        """Every action that took effect, in the order in which they did; a repeated `seq` counts once, as last told."""
        return tuple(self._applied[seq].applied for seq in sorted(self._applied))

    def revisions(self) -> tuple[Revision, ...]:
        """Every change of the configuration that took effect, oldest first."""
        records = (self._applied[seq] for seq in sorted(self._applied))
        made = (revision_of(record.applied, record.differences, record.time) for record in records)
        return tuple(revision for revision in made if revision is not None)

    def pending(self) -> tuple[Act, ...]:
        """What was accepted and neither applied nor refused, oldest first."""
        return tuple(
            Act(request_id=entry.request_id, action=entry.action, author=entry.author, reason=entry.reason)
            for entry in self._accepted.values()
        )

    def answer_of(self, request_id: str) -> Reply | None:
        """What a request was answered, if it was; the answer to asking again."""
        if request_id in self._refused:
            return self._refused[request_id].reply
        if request_id not in self._answered:
            return None
        record = self._applied[self._answered[request_id]]
        if is_awaited(record.applied):
            return self._end_of(record)
        return replies.carried_out(record.applied, record.differences, record.boot)

    def _end_of(self, trial: Applied) -> Reply | None:
        """What whoever asked for a trial was answered at its end."""
        watched = Watched(applied=trial.applied, differences=trial.differences)
        ends = (watched.reply(end.applied, end.concluded) for end in self._applied.values() if end.concluded)
        return next((reply for reply in ends if reply is not None), None)

    def _enter_applied(self, record: Applied) -> None:
        seq, request_id = record.applied.seq, record.applied.request_id
        before = self._applied.get(seq)
        told, concluded = record.reply.boot if record.reply is not None else record.boot, record.concluded
        if before is not None and before.applied.request_id == request_id:
            told, concluded = told or before.boot, concluded or before.concluded
        self._accepted.pop(request_id, None)
        self._applied[seq] = msgspec.structs.replace(record, boot=told, concluded=concluded, reply=None)
        if told or is_awaited(record.applied):
            self._answered[request_id] = seq
            self._refused.pop(request_id, None)
