"""Revisions as a list of overlays over the job file: what each held, and what going back would do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core import edits
from ampd.core import messages as m
from ampd.core.change import Difference
from ampd.core.edits import Edit
from ampd.core.history import History, Revision, revision_of
from ampd.core.objections import Objection
from ampd.core.protocol import DropOverlay, Rollback
from ampd.errors import ConfigError
from tests.core.bench import job_config

KEYS = ("optim.lr", "optim.weight_decay", "clip.max_norm")


def revision(number: int, *dropped: str, **values: Any) -> Revision:
    """A revision that sets some keys, given as section__name."""
    return Revision(
        number=number, window=10 * number, time=float(number), author="ann", reason="",
        values={key.replace("__", "."): value for key, value in values.items()}, dropped=dropped,
    )  # fmt: skip


def history(*revisions: Revision) -> History:
    made = History(job_config())
    made.add(*revisions)
    return made


def test_the_first_revision_is_the_job_file() -> None:
    """Nothing was changed yet: one revision, with nothing over the job file."""
    assert (history().last, history().overlay(1), history().config(1)) == (1, {}, job_config())


def test_a_revision_holds_what_was_set_up_to_it() -> None:
    """Later values of a key replace earlier ones, other keys stay."""
    past = history(revision(2, optim__lr=0.5), revision(3, clip__max_norm=1.0), revision(4, optim__lr=0.25))

    assert past.overlay(3) == {"optim.lr": 0.5, "clip.max_norm": 1.0}
    assert past.config(4) == job_config(optim__lr=0.25, clip__max_norm=1.0)


def test_a_dropped_key_follows_the_job_file() -> None:
    """It is no longer in the overlay, whatever value it was given on the way out."""
    past = history(revision(2, optim__lr=0.5), revision(3, "optim.lr", optim__lr=0.001))

    assert past.overlay(3) == {}
    assert past.config(3) == job_config()


@pytest.mark.parametrize("number", [0, -1, 3])
def test_a_revision_that_is_not_there_is_named(number: int) -> None:
    """With those that are."""
    with pytest.raises(ConfigError, match=f"no revision {number}: this job has revisions 1 to 2"):
        history(revision(2, optim__lr=0.5)).config(number)


def test_only_changes_of_the_configuration_are_revisions() -> None:
    """An injected fault or a reset is in the journal, and is no revision."""
    done = m.AppliedAction(seq=1, window=5, revision=1, action=m.Reset(what="stats"))

    assert revision_of(done, (), 1.0) is None


def test_a_revision_says_who_when_and_why() -> None:
    """All of it comes from what the loop applied."""
    action = m.Configure(changes={"optim.lr": 0.5})
    moved = (Difference(key="optim.lr", old=0.001, new=0.5),)
    done = m.AppliedAction(seq=1, window=5, revision=2, action=action, author="ann", reason="flat")

    made = revision_of(done, moved, 7.0)

    assert made == Revision(
        number=2, window=5, time=7.0, author="ann", reason="flat", values={"optim.lr": 0.5}, differences=moved
    )


def test_going_back_drops_what_was_not_changed_then() -> None:
    """A key of a later revision goes back to the job file, and follows it from then on."""
    past = history(revision(2, optim__lr=0.5), revision(3, clip__max_norm=1.0))

    planned = edits.plan(past.config(3), past, Rollback(revision=2))

    assert isinstance(planned, Edit)
    assert planned.dropped == ("clip.max_norm",)
    assert planned.changes == {"optim.lr": 0.5, "clip.max_norm": None}
    assert [str(d) for d in planned.differences] == ["clip.max_norm 1 -> none"]


def test_going_back_from_the_first_revision_is_refused() -> None:
    """There is nothing before the job file."""
    planned = edits.plan(job_config(), history(), Rollback())

    assert isinstance(planned, Objection)
    assert "nothing to go back to" in planned.message


def test_a_revision_that_no_longer_fits_is_refused() -> None:
    """The job file was edited meanwhile, so that the values of then would not be valid with it."""
    past = History(job_config(amp__max_scale=8.0, amp__init_scale=4.0))
    past.add(revision(2, amp__min_scale=16.0), revision(3, "amp.min_scale", amp__min_scale=1.0))

    planned = edits.plan(past.job_file, past, Rollback(revision=2))

    assert isinstance(planned, Objection)
    assert "amp.min_scale" in planned.message


CHANGE = st.tuples(
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from([0.25, 0.5, 1.0]), min_size=1),
    st.sets(st.sampled_from(KEYS)),
)


def _random(changes: list[tuple[dict[str, float], set[str]]]) -> History:
    past = History(job_config())
    for number, (values, wanted) in enumerate(changes, start=2):
        dropped = tuple(sorted(wanted & set(values)))
        past.add(
            Revision(number=number, window=0, time=0, author="", reason="", values=values, dropped=dropped)
        )
    return past


@given(changes=st.lists(CHANGE, max_size=6), back=st.integers(0, 6))
def test_going_back_gives_what_held_then(changes: list[tuple[dict[str, float], set[str]]], back: int) -> None:
    """After any history and to any revision: the same live keys, and the same overlay."""
    past = _random(changes)
    number = max(1, past.last - back)

    planned = edits.plan(past.config(past.last), past, Rollback(revision=number))

    assert isinstance(planned, Edit)
    made = Revision(
        number=past.last + 1, window=0, time=0, author="", reason="", values=planned.changes,
        dropped=planned.dropped,
    )  # fmt: skip
    then, held = past.config(number), past.overlay(number)
    past.add(made)
    assert past.config(past.last) == then
    assert past.overlay(past.last) == held


@given(changes=st.lists(CHANGE, max_size=6))
def test_dropping_the_overlay_gives_the_job_file(changes: list[tuple[dict[str, float], set[str]]]) -> None:
    """All of it, and nothing lies over it any more."""
    past = _random(changes)

    planned = edits.plan(past.config(past.last), past, DropOverlay())

    assert isinstance(planned, Edit)
    assert set(planned.dropped) == set(planned.changes) == set(past.overlay(past.last))
