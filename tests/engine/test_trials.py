"""Trials in the loop: begun, judged, ended and repeated at a boundary, and never judged anew."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ampd.core import messages as m
from ampd.core.guard import parse
from ampd.core.ledger import Cause
from ampd.core.trial import Terms
from tests.engine.test_boundary import Crossing, lr, resumed


def on_trial(*guards: str, windows: int = 4, **changes: Any) -> m.Configure:
    """A change that is put on trial; the learning rate, where none is named."""
    named = {key.replace("__", "."): value for key, value in changes.items()} or {"optim.lr": 0.5}
    return m.Configure(
        changes=named, trial=Terms(windows=windows, guards=tuple(map(parse, guards or ("nonfinite==0",))))
    )


def running(*guards: str, **options: Any) -> Crossing:
    """A boundary with a trial that began before window 10."""
    crossing = Crossing()
    crossing.order(on_trial(*guards, **options), "asked")
    crossing.boundary.cross(10)
    return crossing


def train(crossing: Crossing, *windows: int, bad: int = -1) -> None:
    """Cross into and judge these windows, one of them never applied."""
    for window in windows:
        crossing.boundary.cross(window)
        crossing.boundary.live.timed(0.01)
        crossing.judge(window, fell=False, skipped=Cause.MODEL if window == bad else None)


def ends(crossing: Crossing) -> list[tuple[int, str, Any]]:
    """What ended trials: at which window, by whom, how."""
    done = [report.applied for report in crossing.said(m.Applied)]
    return [(a.window, a.author, a.action) for a in done if isinstance(a.action, m.Confirm) or (isinstance(a.action, m.Configure) and a.action.reverts)]  # fmt: skip


def test_a_trial_whose_guards_hold_is_confirmed() -> None:
    """At the boundary after its last window; the revision stays, and no other is made."""
    crossing = running()
    train(crossing, *range(10, 14))

    assert crossing.boundary.has_work(14)
    crossing.boundary.cross(14)

    assert ends(crossing) == [(14, "policy", m.Confirm(revision=2))]
    assert (crossing.trainer.config.optim.lr, crossing.boundary.live.revision) == (0.5, 2)
    assert crossing.boundary.live.trial is None


def test_a_trial_that_trips_is_reverted() -> None:
    """At the next boundary, by a revision of policy that says which guard; the overlay is as before."""
    crossing = running()
    train(crossing, 10, 11, bad=11)
    crossing.boundary.cross(12)

    ((window, author, action),) = ends(crossing)
    assert (window, author, action.reverts) == (12, "policy", 2)
    assert (
        "guard nonfinite==0 does not hold: nonfinite is 1 after window 11"
        in crossing.said(m.Applied)[-1].applied.reason
    )
    assert (crossing.trainer.config.optim.lr, crossing.boundary.live.overrides) == (0.01, {})
    assert crossing.boundary.live.revision == 3


def test_a_revert_goes_back_to_the_overlay_that_was() -> None:
    """A key that had a live value before has it again."""
    crossing = Crossing()
    crossing.order(lr(0.25))
    crossing.order(on_trial())
    crossing.order(m.Cancel(), "cancelled")
    crossing.boundary.cross(3)

    assert crossing.trainer.config.optim.lr == 0.25
    assert crossing.boundary.live.overrides == {"optim.lr": 0.25}
    assert crossing.said(m.Applied)[-1].applied.request_id == "cancelled"


def test_other_keys_stay_where_they_were_set() -> None:
    """A revert moves what was on trial, and nothing else."""
    crossing = running()
    crossing.order(m.Configure(changes={"clip.max_norm": 2.0}))
    crossing.order(m.Cancel())
    crossing.boundary.cross(11)

    assert crossing.boundary.live.overrides == {"clip.max_norm": 2.0}


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lr(0.7), "optim.lr is on trial since revision 2, until window 14"),
        (lr(0.5), "optim.lr is on trial"),
        (m.Configure(changes={"clip.max_norm": 1.0}, dropped=("optim.lr",)), "optim.lr is on trial"),
        (on_trial(clip__max_norm=1.0), "one trial runs at a time"),
    ],
)
def test_what_is_on_trial_is_left_alone(action: m.Configure, said: str) -> None:
    """A change of its keys, and a second trial, are refused with what to do."""
    crossing = running()
    crossing.order(action, "late")
    crossing.boundary.cross(11)

    (refused,) = crossing.said(m.Refused)
    assert (refused.request_id, refused.code) == ("late", "CONFLICT")
    assert said in refused.message
    assert "ampctl confirm" in refused.hint


@pytest.mark.parametrize("action", [m.Confirm(), m.Cancel()])
def test_nothing_on_trial_cannot_be_ended(action: m.Asked) -> None:
    """Neither before a trial nor after its end."""
    crossing = Crossing()
    crossing.order(action)
    crossing.boundary.cross(1)

    assert [(refused.code, refused.message) for refused in crossing.said(m.Refused)] == [
        ("CONFLICT", "no change is on trial")
    ]


def test_an_operator_confirms_early() -> None:
    """It stays; and what becomes of later windows reverts nothing any more."""
    crossing = running()
    crossing.order(m.Confirm(), "early")
    train(crossing, 11, 12, bad=12)
    crossing.boundary.cross(13)

    assert ends(crossing) == [(11, "operator", m.Confirm(revision=2))]
    assert crossing.trainer.config.optim.lr == 0.5


def test_a_trial_longer_than_the_job_is_refused() -> None:
    """It could never end; the toy has a hundred windows."""
    crossing = Crossing()
    for windows in (41, 40):
        crossing.order(on_trial(windows=windows), f"for {windows}")
    crossing.boundary.cross(60)

    (refused,) = crossing.said(m.Refused)
    assert (refused.request_id, refused.code) == ("for 41", "BAD_VALUE")
    assert "40 left" in refused.message


def test_a_multiple_needs_windows_before() -> None:
    """Refused while there are too few; since the last change, they count anew."""
    crossing = Crossing()
    train(crossing, *range(8))
    crossing.order(lr(0.3))
    crossing.order(on_trial("loss<2x"), "soon")
    crossing.boundary.cross(8)
    train(crossing, *range(8, 16))
    crossing.order(on_trial("loss<2x"), "later")
    crossing.boundary.cross(16)

    assert [refused.request_id for refused in crossing.said(m.Refused)] == ["soon"]
    assert crossing.boundary.live.trial is not None
    assert crossing.boundary.live.trial.terms.before.windows == 8  # type: ignore[union-attr]  # it has begun


def test_a_trial_goes_on_from_a_checkpoint() -> None:
    """What it had counted is in the live configuration; the rest of its windows decides."""
    first = running("fallback_rate<0.5")
    train(first, 10, 11)
    saved = msgspec.json.decode(msgspec.json.encode(first.boundary.live.lasting()))

    second = resumed([report.applied for report in first.said(m.Applied)], saved)
    train(second, 12, 13)
    second.boundary.cross(14)

    assert ends(second) == [(14, "policy", m.Confirm(revision=2))]


def test_how_a_trial_ended_is_repeated_and_not_judged() -> None:
    """A run that goes back repeats the end of its journal, though its own windows would have decided otherwise."""
    first = running()
    train(first, 10, 11, bad=11)
    first.boundary.cross(12)
    history = [report.applied for report in first.said(m.Applied)]

    again = resumed(history)
    train(again, *range(10, 14))
    again.boundary.cross(14)

    assert [report.applied for report in again.said(m.Applied)] == history
    assert (again.boundary.live.revision, again.boundary.live.overrides) == (3, {})


def test_a_fallback_limit_fails_a_dtype_on_trial() -> None:
    """Where the limit would raise the dtype and that is what is on trial, the trial is reverted instead."""
    crossing = Crossing(amp={"dtype": "float32", "max_fp32_fallbacks": 0, "on_fallback_limit": "raise_dtype"})
    crossing.order(on_trial(amp__dtype="float16"))
    crossing.boundary.cross(10)
    crossing.judge(10)
    crossing.boundary.cross(11)

    ((window, _author, action),) = ends(crossing)
    assert (window, action.reverts, crossing.trainer.config.amp.dtype) == (11, 2, "float32")
    assert "fell back to float32" in crossing.said(m.Applied)[-1].applied.reason


def test_what_a_killed_daemon_did_not_write_down_is_told_again() -> None:
    """A checkpoint that is ahead of the journal: the next daemon hears of it, under the same numbers and ids, once."""
    first = running()
    first.order(m.Cancel(), "cancelled")
    first.boundary.cross(11)
    saved = msgspec.json.decode(msgspec.json.encode(first.boundary.live.lasting()))
    began, ended = (msgspec.structs.replace(report, choice=None, lr=None) for report in first.said(m.Applied))

    second = Crossing()
    pending = [m.Act(request_id="cancelled", action=m.Cancel()), m.Act(request_id="new", action=lr(0.7))]
    second.boundary.resume(saved, [began.applied], pending)
    assert second.boundary.has_work(11)
    second.boundary.cross(11)

    assert second.said(m.Applied)[0] == ended
    assert [report.applied.request_id for report in second.said(m.Applied)] == ["cancelled", "new"]
    assert [report.applied.seq for report in second.said(m.Applied)] == [2, 3]
