"""Who asks for a trial is answered at its end, once, whatever becomes of worker and daemon in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ampd.core import messages as m
from ampd.core import protocol as p
from ampd.core import stimuli as s
from ampd.core.trial import OnTrial
from ampd.core.watched import under_way
from tests.core.bench import Bench, snapshot

TRIED = p.Set(changes={"optim.lr": "0.5"}, trial=20, guards=("nonfinite==0",))


def tried(bench: Bench, command: p.Set = TRIED) -> m.AppliedAction:
    """A change is applied on trial: the action that was."""
    bench.ask(command, request_id="the-trial")
    bench.apply(bench.acts[-1])
    assert bench.trial is not None
    return bench.trial


def end(bench: Bench, action: m.Asked, *, seq: int = 2, author: str = "policy") -> list[Any]:
    """The loop ends the trial."""
    order = m.Act(request_id="", action=action, author=author, reason="because")
    return bench.apply(order, seq=seq, window=30, revision=2 + isinstance(action, m.Cancel))


def test_the_answer_comes_at_the_end(bench: Bench) -> None:
    """Not when the change is applied; with what was watched, and how it came out."""
    bench.running()
    tried(bench)
    assert bench.replies == []

    end(bench, m.Confirm())

    assert isinstance(bench.reply, p.Done)
    assert (bench.reply.id, bench.reply.revision, bench.reply.window) == ("the-trial", 2, 30)
    assert bench.result == {
        "changes": [{"key": "optim.lr", "old": 0.001, "new": 0.5}], "dry_run": False,
        "trial": {"windows": 20, "guards": ["nonfinite==0"], "outcome": "confirmed", "reason": "because"},
    }  # fmt: skip


def test_a_revert_is_answered_as_done_and_undone(bench: Bench) -> None:
    """The change was made, so it is no refusal; the outcome says what became of it."""
    bench.running()
    tried(bench)

    end(bench, m.Cancel())

    assert (bench.result["trial"]["outcome"], bench.result["trial"]["reason"]) == ("reverted", "because")


def test_who_does_not_wait_is_answered_when_it_is_applied(bench: Bench) -> None:
    """And hears nothing more."""
    bench.running()
    tried(bench, p.Set(changes={"optim.lr": "0.5"}, trial=20, wait=False))
    assert bench.result["trial"]["outcome"] == "running"

    end(bench, m.Confirm())

    assert len(bench.replies) == 1


def test_who_ends_it_and_who_waits_both_hear(bench: Bench) -> None:
    """Each under an id of its own, and each once."""
    bench.running()
    tried(bench)
    bench.ask(p.Cancel(), client="bob", request_id="the-cancel")

    bench.apply(bench.acts[-1], seq=2, revision=3)

    assert {reply.id for reply in bench.replies} == {"the-trial", "the-cancel"}
    assert len(bench.replies) == 2


def test_whoever_asks_again_waits_on(bench: Bench) -> None:
    """The same id joins the wait; after the end it is answered at once."""
    bench.running()
    tried(bench)
    bench.ask(TRIED, client="bob", request_id="the-trial")
    end(bench, m.Confirm())
    bench.ask(TRIED, client="cat", request_id="the-trial")

    assert [reply.id for reply in bench.replies] == ["the-trial"] * 3
    assert len(bench.acts) == 1


def test_the_end_is_on_disk_before_it_is_told(make_bench: Callable[..., Bench]) -> None:
    """One record has the action that ended it and the answer that is owed."""
    bench = make_bench(writes=False).running()
    bench.ask(TRIED, request_id="the-trial")
    bench.write()
    bench.apply(bench.acts[-1])
    bench.write()

    end(bench, m.Confirm())
    assert bench.replies == []
    assert [e.concluded.id for e in bench.unwritten if isinstance(e, s.Taken) and e.concluded] == [
        "the-trial"
    ]

    bench.write()
    assert bench.reply.id == "the-trial"


def test_a_worker_that_dies_keeps_them_waiting(bench: Bench) -> None:
    """The next one repeats the change from the journal, and its end answers."""
    bench.running()
    tried(bench)
    bench.die(-9)
    bench.restart()
    bench.get_ready(5)
    assert bench.replies == []

    end(bench, m.Confirm())

    assert bench.result["trial"]["outcome"] == "confirmed"


def test_the_next_daemon_takes_the_waiting_over(bench: Bench, make_bench: Callable[..., Bench]) -> None:
    """A trial without an end in the journal: who asks again under the same id hears of its end."""
    done = tried(bench.running())
    later = make_bench(schedule=(done,)).running()
    later.trial = done
    later.ask(TRIED, request_id="the-trial")
    assert later.acts == []

    end(later, m.Cancel())

    assert later.result["trial"]["outcome"] == "reverted"


def test_a_job_that_ends_first_says_so(bench: Bench) -> None:
    """Nothing is final: it is no answer that a later request would be given."""
    bench.running()
    tried(bench)

    bench.signal("terminate")
    bench.finish("stopped")

    assert bench.refusal.code == "SHUTTING_DOWN"
    assert "revision 2 is still on trial" in bench.refusal.message
    assert "--request-id" in bench.refusal.hint


@pytest.mark.parametrize(
    ("command", "field", "said"),
    [
        (p.Set(changes={"optim.lr": "0.5"}, trial=9, guards=("speed<2",)), "guards", "'speed' is no figure"),
        (p.Set(changes={"optim.lr": "0.5"}, guards=("nonfinite==0",)), "guards", "is for a trial"),
        (p.Preset(name="ultra", wait=False), "wait", "is for a trial"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    bench: Bench, command: p.AnyCommand, field: str, said: str
) -> None:
    """At once, and nothing is sent."""
    bench.running().ask(command)

    assert (bench.refusal.code, bench.refusal.field) == ("BAD_VALUE", field)
    assert said in bench.refusal.message
    assert bench.acts == []


def test_a_dry_run_says_what_would_be_watched(bench: Bench) -> None:
    """The defaults by name, where no guard is given."""
    bench.running().ask(p.Preset(name="ultra", trial=50, dry_run=True))

    assert bench.result["trial"]["guards"] == [
        "nonfinite==0",
        "fallback_rate<0.05",
        "loss<1.5x",
        "step_time<1.5x",
    ]
    assert (bench.result["trial"]["outcome"], bench.acts) == (None, [])


@pytest.mark.parametrize(("action", "outcome"), [(m.Confirm(), "confirmed"), (m.Cancel(), "reverted")])
def test_history_says_how_it_came_out(bench: Bench, action: m.Asked, outcome: str) -> None:
    """With the window and the reason; a revision that reverts says which."""
    bench.running()
    tried(bench)
    end(bench, action)
    bench.ask(p.History())

    first, *others = bench.result["revisions"]
    assert (first["trial"]["outcome"], first["trial"]["window"], first["trial"]["reason"]) == (
        outcome,
        30,
        "because",
    )
    assert [other["reverts"] for other in others] == ([2] if outcome == "reverted" else [])


def test_events_name_what_trials_do(bench: Bench) -> None:
    """A beginning and an end each; a revert is a warning."""
    bench.running()
    tried(bench)
    end(bench, m.Cancel())

    told = {i.event.name: i.level for i in bench.of(s.Publish)}
    assert (told["trial.began"], told["trial.reverted"]) == ("info", "warning")


def test_a_trial_with_an_end_is_not_under_way(bench: Bench) -> None:
    """A later trial is; one that nobody waits for is not."""
    done = tried(bench.running())
    ended = m.AppliedAction(seq=2, window=30, revision=2, action=m.Confirm(revision=2))

    assert under_way((done,), ()) is not None
    assert under_way((done, ended), ()) is None


def test_an_ended_trial_is_not_shown_as_running(bench: Bench) -> None:
    """Whoever was told of its end and looks at once sees none, though the next snapshot is on its way."""
    bench.running()
    done = tried(bench)
    standing = OnTrial(
        revision=2, since=10, until=30, windows=4, keys=("optim.lr",), guards={"nonfinite==0": 0.0}
    )
    bench.report(msgspec.structs.replace(snapshot(14), trial=standing))
    bench.ask(p.Status())
    assert bench.result["trial"]["until"] == done.window + 20

    end(bench, m.Confirm())
    bench.ask(p.Status())

    assert bench.result["trial"] is None
