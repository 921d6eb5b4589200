"""Journals as they can come to be: requests accepted, applied, refused, in any order; policies; repetitions."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from ampd.control import records as r
from ampd.core import messages as m
from ampd.core.change import Difference
from ampd.core.ledger import Cause
from ampd.core.protocol import Code, Refusal

ACTIONS: tuple[m.Action, ...] = (
    m.Configure(changes={"amp.dtype": "bfloat16"}, base=1),
    m.Configure(changes={"optim.lr": 1e-3}, dropped=("clip.max_norm",)),
    m.Reset(what="scaler"),
    m.Inject(fault="overflow", windows=3),
    m.Avoid(cause=Cause.DATA),
)
MOVED = (Difference(key="amp.dtype", old="auto", new="bfloat16"),)


def accepted(request_id: str, action: m.Action = ACTIONS[0]) -> r.Accepted:
    return r.Accepted(time=1.0, request_id=request_id, action=action, author="alice", reason="why")


def applied(request_id: str, seq: int, action: m.Action = ACTIONS[0], *, window: int = 0) -> r.Applied:
    done = m.AppliedAction(
        seq=seq, window=window or 10 * seq, revision=seq + 1, action=action, request_id=request_id
    )
    moved = MOVED if isinstance(action, m.Configure) else ()
    return r.Applied(time=2.0, applied=done, differences=moved, boot="b" if request_id else "")


def refused(request_id: str) -> r.Refused:
    return r.Refused(time=2.0, reply=Refusal(id=request_id, boot="b", code=Code.APPLY_FAILED, message="no"))


@st.composite
def histories(draw: Callable[[st.SearchStrategy[int]], int], most: int = 30) -> list[r.Record]:
    """A whole journal."""
    records, open_ids, seq = list[r.Record](), list[str](), 0
    for number in range(draw(st.integers(0, most))):
        action = ACTIONS[draw(st.integers(0, len(ACTIONS) - 1))]
        kind = draw(st.integers(0, 5))
        if kind <= 1:
            open_ids.append(f"request-{number}")
            records.append(accepted(open_ids[-1], action))
        elif kind == 2 and seq:
            records.append(records[_last_applied(records)])
        elif kind == 3 and open_ids:
            records.append(refused(open_ids.pop(draw(st.integers(0, len(open_ids) - 1)))))
        else:
            seq += 1
            asked = open_ids.pop(0) if open_ids and kind == 4 else ""
            records.append(applied(asked, seq, action))
    return records


def _last_applied(records: list[r.Record]) -> int:
    return max(number for number, record in enumerate(records) if isinstance(record, r.Applied))


def said(account: r.Account, records: list[r.Record]) -> tuple[object, ...]:
    """Everything that an account is asked for, with the answers to all requests of some records."""
    ids = {record.request_id for record in records if isinstance(record, r.Accepted)}
    answers = {request_id: account.answer_of(request_id) for request_id in ids}
    return account.applied(), account.revisions(), account.pending(), answers
