"""What the lines of a journal amount to, and that the fewest lines amount to the same."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from ampd.control import records as r
from ampd.control.records import Account
from ampd.core import messages as m
from ampd.core import replies
from ampd.core.protocol import Done
from tests.control.histories import ACTIONS, MOVED, accepted, applied, histories, refused, said


@given(histories())
def test_the_fewest_records_say_the_same(records: list[r.Record]) -> None:
    """Schedule, revisions, promises and answers are those of all the records."""
    whole = Account(records)

    assert said(Account(whole.records()), records) == said(whole, records)


@given(histories(), histories())
def test_a_journal_goes_on_from_its_fewest_records(before: list[r.Record], after: list[r.Record]) -> None:
    """What is appended to the fewest records adds up as if all of them were there still."""
    everything = before + after

    went_on = Account([*Account(before).records(), *after])

    assert said(went_on, everything) == said(Account(everything), everything)


@given(histories())
def test_nothing_in_the_fewest_records_can_be_left_out(records: list[r.Record]) -> None:
    """Once is enough: the fewest of the fewest are the same, and as many as the account says."""
    account = Account(records)
    fewest = list(account.records())

    assert list(Account(fewest).records()) == fewest
    assert len(account) == len(fewest) <= len(records)


def test_a_settled_promise_is_left_out() -> None:
    """That a request was accepted says nothing once it was applied or refused."""
    account = Account([accepted("r1"), accepted("r2"), accepted("r3"), applied("r1", 1), refused("r2")])

    assert list(account.records()) == [applied("r1", 1), refused("r2"), accepted("r3")]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: type(action).__name__)
def test_the_answer_is_made_again(action: m.Action) -> None:
    """An applied action answers its author with what took effect, whatever kind it was."""
    record = applied("r1", 4, action)

    assert Account([record]).answer_of("r1") == Done(
        id="r1", boot="b", revision=5, window=40, result=replies.taken(action, record.differences)
    )


def test_what_nobody_asked_for_answers_nobody() -> None:
    """A policy's action is in the schedule; no id leads to it."""
    account = Account([applied("", 1)])

    assert account.answer_of("") is None
    assert len(account.applied()) == 1


def test_an_answer_of_an_earlier_form_is_the_same() -> None:
    """Journals once held the whole reply; they are read, answer as they did, and become the shorter form."""
    record = applied("r1", 1)
    reply = Done(id="r1", boot="old", revision=2, window=10, result=replies.taken(ACTIONS[0], MOVED))
    earlier = msgspec.structs.replace(record, boot="", reply=reply)

    account = Account([earlier])

    assert account.answer_of("r1") == reply
    assert list(account.records()) == [msgspec.structs.replace(record, boot="old")]


def test_a_repetition_does_not_lose_the_answer() -> None:
    """An action that is told twice, the second time to nobody, still answers who asked for it."""
    again = msgspec.structs.replace(applied("r1", 1, window=12), boot="")

    account = Account([applied("r1", 1), again])

    assert isinstance(account.answer_of("r1"), Done)
    assert [done.window for done in account.applied()] == [12]


def test_refusals_are_remembered_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest refusal is forgotten first; what was applied never is."""
    monkeypatch.setattr(r, "MOST_REFUSALS", 3)

    account = Account([applied("r0", 1), *(refused(f"r{number}") for number in range(1, 6))])

    assert [account.answer_of(f"r{number}") is None for number in range(6)] == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]


def test_what_was_refused_and_carried_out_later_is_told_as_carried_out() -> None:
    """A refusal that was forgotten may be followed by the deed; the deed is what happened."""
    account = Account([refused("r1"), accepted("r1"), applied("r1", 1)])

    assert isinstance(account.answer_of("r1"), Done)
    assert account.pending() == ()
