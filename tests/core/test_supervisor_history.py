"""Questions about the past, and the way back: answered from the history that the journal and the loop make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.change import Difference
from ampd.core.history import Revision
from ampd.core.protocol import Code
from tests.core.bench import Bench, job_config

CHANGES: tuple[dict[str, Any], ...] = ({"optim.lr": 0.5}, {"clip.max_norm": 1.0}, {"optim.lr": 0.25})


def changed(bench: Bench, *changes: dict[str, Any]) -> Bench:
    """A running job with some changes made by ann, at windows 10, 20, ..."""
    bench.running()
    for number, change in enumerate(changes, start=1):
        words = {key: str(value) for key, value in change.items()}
        bench.ask(p.Set(changes=words, reason=f"reason {number}"))
        bench.apply(bench.acts[-1], seq=number, window=10 * number, revision=number + 1)
    return bench


def test_history_has_every_change(bench: Bench) -> None:
    """Number, window, time, author, reason and old -> new, oldest first."""
    changed(bench, *CHANGES).ask(p.History())

    first, *_, last = bench.result["revisions"]
    assert first == {
        "revision": 2, "window": 10, "time": 1000.0, "author": "ann", "reason": "reason 1",
        "changes": [{"key": "optim.lr", "old": 0.001, "new": 0.5}], "trial": None, "reverts": None,
    }  # fmt: skip
    assert (last["revision"], last["changes"][0]["old"]) == (4, 0.5)


def test_history_can_be_cut_to_the_newest(bench: Bench) -> None:
    """`-n 1` is the last change."""
    changed(bench, *CHANGES).ask(p.History(last=1))

    assert [r["revision"] for r in bench.result["revisions"]] == [4]


def test_a_repeated_change_is_in_the_history_once(bench: Bench) -> None:
    """A worker that was restarted repeats its schedule; nobody changed anything."""
    changed(bench, CHANGES[0]).die()
    bench.restart().get_ready(revision=1)
    done = m.AppliedAction(seq=1, window=10, revision=2, action=m.Configure(changes={"optim.lr": 0.5}))
    bench.report(m.Applied(applied=done))

    bench.ask(p.History())

    assert [r["revision"] for r in bench.result["revisions"]] == [2]


def test_history_of_earlier_daemons_comes_with_the_start(make_bench: Callable[..., Bench]) -> None:
    """It is given at boot, and holds before the worker is there."""
    moved = (Difference(key="optim.lr", old=0.001, new=0.5),)
    action = m.Configure(changes={"optim.lr": 0.5})
    done = m.AppliedAction(seq=1, window=10, revision=2, action=action, author="ann")
    earlier = Revision(
        number=2, window=10, time=1.0, author="ann", reason="", values=action.changes, differences=moved
    )
    bench = make_bench()
    bench.feed(s.Booted(now=bench.now, schedule=(done,), revisions=(earlier,)))

    bench.ask(p.Diff())

    assert bench.result == {
        "old": 1, "new": 2, "changes": [{"key": "optim.lr", "old": 0.001, "new": 0.5}],
    }  # fmt: skip


def test_a_dropped_key_follows_an_edited_job_file(make_bench: Callable[..., Bench]) -> None:
    """It was dropped by an earlier daemon; what the file says now is what holds at the next start."""
    back = m.Configure(changes={"optim.lr": 0.001}, dropped=("optim.lr",))
    schedule = (
        m.AppliedAction(seq=1, window=5, revision=2, action=m.Configure(changes={"optim.lr": 0.5})),
        m.AppliedAction(seq=2, window=6, revision=3, action=back),
    )

    bench = make_bench(job_config(optim__lr=0.125), schedule=schedule).boot()

    assert (bench.view.config.optim.lr, bench.view.revision) == (0.125, 3)


def test_two_revisions_are_compared(bench: Bench) -> None:
    """Any two, in any order, net of what was changed in between."""
    changed(bench, *CHANGES).ask(p.Diff(old=4, new=2))

    assert [(c["key"], c["old"], c["new"]) for c in bench.result["changes"]] == [
        ("optim.lr", 0.25, 0.5), ("clip.max_norm", 1.0, None),
    ]  # fmt: skip


def test_a_revision_that_is_not_there_is_refused(bench: Bench) -> None:
    """By name, with the range that is there."""
    changed(bench, *CHANGES).ask(p.Diff(old=9))

    assert (bench.refusal.code, bench.refusal.field) == (Code.BAD_VALUE, "revision")


def test_rollback_is_a_new_revision(bench: Bench) -> None:
    """On its way like any change: recorded, sent with the revision that it was worked out on, then answered."""
    changed(bench, *CHANGES).ask(p.Rollback(revision=2, reason="worse"), client="bob")

    sent = bench.acts[-1]
    assert sent.action == m.Configure(
        changes={"optim.lr": 0.5, "clip.max_norm": None}, base=4, dropped=("clip.max_norm",)
    )
    bench.apply(sent, seq=4, window=40, revision=5)

    assert isinstance(bench.reply, p.Done)
    assert (bench.reply.revision, bench.reply.window) == (5, 40)
    assert [c["key"] for c in bench.result["changes"]] == ["optim.lr", "clip.max_norm"]
    assert bench.view.config == bench.supervisor.run.chronicle.history.config(2)


def test_rollback_without_a_number_undoes_the_last_change(bench: Bench) -> None:
    """Twice is back and forth, as each is a revision."""
    changed(bench, *CHANGES[:2]).ask(p.Rollback())
    bench.apply(bench.acts[-1], seq=3, window=30, revision=4)
    assert bench.view.config.clip.max_norm is None

    bench.ask(p.Rollback())
    bench.apply(bench.acts[-1], seq=4, window=40, revision=5)

    assert bench.view.config.clip.max_norm == 1.0


def test_a_dry_rollback_shows_and_changes_nothing(bench: Bench) -> None:
    """What would move, and no order."""
    changed(bench, *CHANGES).ask(p.Rollback(revision=1, dry_run=True))

    assert bench.result["dry_run"] is True
    assert [c["key"] for c in bench.result["changes"]] == ["optim.lr", "clip.max_norm"]
    assert len(bench.acts) == len(CHANGES)


def test_rollback_to_what_holds_changes_nothing(bench: Bench) -> None:
    """The newest revision is where the job is: answered at once, and no revision is made."""
    changed(bench, *CHANGES).ask(p.Rollback(revision=4))

    assert bench.result == {"changes": [], "dry_run": False, "trial": None}
    assert len(bench.acts) == len(CHANGES)


def test_rollback_is_compare_and_set(bench: Bench) -> None:
    """Where the revision has moved on since the operator looked, nothing is changed."""
    changed(bench, *CHANGES).ask(p.Rollback(revision=2, if_revision=3))

    assert bench.refusal.code is Code.CONFLICT


def test_the_overlay_says_what_differs_and_since_when(bench: Bench) -> None:
    """The job file's value, the live one, and the revision that set it last."""
    changed(bench, *CHANGES).ask(p.Overlay())

    assert bench.result["changes"] == [
        {"key": "optim.lr", "job_file": 0.001, "value": 0.25, "revision": 4, "author": "ann", "reason": "reason 3"},
        {"key": "clip.max_norm", "job_file": None, "value": 1.0, "revision": 3, "author": "ann",
         "reason": "reason 2"},
    ]  # fmt: skip


def test_dropping_the_overlay_goes_back_to_the_job_file(bench: Bench) -> None:
    """In one revision; afterwards nothing lies over the file."""
    changed(bench, *CHANGES).ask(p.DropOverlay())
    bench.apply(bench.acts[-1], seq=4, window=40, revision=5)

    bench.ask(p.Overlay())

    assert bench.result["changes"] == []
    assert bench.view.config == job_config()


def test_a_worker_begins_with_the_job_file(bench: Bench) -> None:
    """Never with the live changes, which it repeats at their windows."""
    changed(bench, *CHANGES).die()
    bench.restart()

    started = [order for order in bench.orders if isinstance(order, m.Start)]
    assert [start.config for start in started] == [job_config(), job_config()]
