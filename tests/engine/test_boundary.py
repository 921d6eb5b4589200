"""Between windows: actions numbered and reported, history repeated at its windows, and policy from the ledger."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import torch

from ampd.core import messages as m
from ampd.core.ledger import Cause, WindowRecord
from ampd.core.precision import Capability, Precision
from ampd.engine.boundary import Boundary
from tests.engine import toy
from tests.engine.rings import Script, attempt_at, stage_of
from tests.engine.runs import act_at


class Crossing:
    """A boundary with its trainer, its queue of orders, and what it reported."""

    def __init__(self, **sections: dict[str, Any]) -> None:
        self.trainer = toy.trainer(**sections)
        self.orders: queue.SimpleQueue[m.Order] = toy.orders()
        self.reports: list[m.Report] = []
        self.boundary = Boundary(self.trainer, self.orders, self.reports.append, self.trainer.config)

    def order(self, action: m.Asked, request_id: str = "r") -> None:
        """Put an action into the queue."""
        self.orders.put(m.Act(request_id=request_id, action=action, author="operator", reason="why"))

    def said(self, kind: type[Any]) -> list[Any]:
        """The reports of a kind."""
        return [report for report in self.reports if isinstance(report, kind)]

    def judge(self, window: int, *, epoch: int = 0, fell: bool = True, skipped: Cause | None = None) -> None:
        """Tell it of a window that fell back (or not), and was skipped (or not)."""
        replays = ((Cause.FORWARD, "float32"),) if fell else ()
        self.boundary.judge(
            WindowRecord(
                window=window, epoch=epoch, loss=1.0, precision=Precision.FLOAT32, first=Precision.FLOAT16, lr=0.1,
                grad_norm=1.0, replays=replays, skipped=skipped,
            )
        )  # fmt: skip


def lr(value: float, base: int | None = None) -> m.Configure:
    """A change of the learning rate."""
    return m.Configure(changes={"optim.lr": value}, base=base)


def test_an_action_takes_effect_and_is_reported() -> None:
    """With its number, its window, the revision it made, who asked and why, and what it moved."""
    crossing = Crossing()
    crossing.order(lr(0.5), "mine")

    crossing.boundary.cross(7)

    (report,) = crossing.said(m.Applied)
    applied = report.applied
    assert crossing.trainer.config.optim.lr == 0.5
    assert (applied.seq, applied.window, applied.revision) == (1, 7, 2)
    assert (applied.request_id, applied.author, applied.reason) == ("mine", "operator", "why")
    assert [str(d) for d in report.differences] == ["optim.lr 0.01 -> 0.5"]


def test_a_report_says_what_holds_since() -> None:
    """The next learning rate as the schedule has it, and the precision with its reason."""
    crossing = Crossing(optim={"schedule": "constant", "warmup_windows": 4})
    crossing.order(lr(0.8))

    crossing.boundary.cross(0)

    (report,) = crossing.said(m.Applied)
    assert report.lr == crossing.trainer.next_lr == pytest.approx(0.2)
    assert report.choice == crossing.trainer.choice


def test_actions_are_numbered_without_holes() -> None:
    """A change makes a revision; a reset or a fault is an action without one."""
    crossing = Crossing()
    for action in (lr(0.5), m.Reset(what="stats"), m.Inject(fault="overflow"), lr(0.6)):
        crossing.order(action)

    crossing.boundary.cross(1)

    assert [(a.applied.seq, a.applied.revision) for a in crossing.said(m.Applied)] == [
        (1, 2),
        (2, 2),
        (3, 2),
        (4, 3),
    ]


def test_a_change_that_fails_changes_nothing() -> None:
    """It is refused with its key, and takes no number."""
    crossing = Crossing()
    crossing.order(m.Configure(changes={"optim.lr": 0.5, "amp.growth_interval": 0}), "bad")
    crossing.order(lr(0.6))

    crossing.boundary.cross(1)

    (refused,), (applied,) = crossing.said(m.Refused), crossing.said(m.Applied)
    assert (refused.request_id, refused.code, refused.field) == ("bad", "APPLY_FAILED", "amp.growth_interval")
    assert (applied.applied.seq, applied.applied.revision) == (1, 2)


def test_a_dtype_that_the_device_cannot_do_is_refused() -> None:
    """What only the device knows is found at the boundary, and leaves the old configuration in force."""
    crossing = Crossing()
    crossing.trainer.capability = Capability(device="toaster", native=())
    crossing.order(m.Configure(changes={"amp.dtype": "float16"}))

    crossing.boundary.cross(1)

    assert "toaster cannot run it" in crossing.said(m.Refused)[0].message
    assert crossing.trainer.config.amp.dtype == "auto"
    assert crossing.boundary.live.revision == 1


@pytest.mark.parametrize(("base", "taken"), [(None, True), (2, True), (1, False), (3, False)])
def test_a_base_is_compared(base: int | None, taken: bool) -> None:
    """A change that was made for another revision is refused; one without a base rebases."""
    crossing = Crossing()
    crossing.order(lr(0.5))
    crossing.order(lr(0.6, base))

    crossing.boundary.cross(1)

    assert crossing.trainer.config.optim.lr == (0.6 if taken else 0.5)
    assert [refused.code for refused in crossing.said(m.Refused)] == ([] if taken else ["CONFLICT"])


def test_other_orders_are_left_for_the_loop() -> None:
    """In their order, with actions in between carried out."""
    crossing = Crossing()
    crossing.orders.put(m.Pause(request_id="p"))
    crossing.order(lr(0.5))
    crossing.orders.put(m.Stop())

    crossing.boundary.cross(1)

    assert crossing.boundary.requested == [m.Pause(request_id="p"), m.Stop()]
    assert crossing.trainer.config.optim.lr == 0.5


def resumed(schedule: Sequence[m.AppliedAction], saved: Any = None, **sections: dict[str, Any]) -> Crossing:
    """A boundary that resumes with a journal."""
    crossing = Crossing(**sections)
    crossing.boundary.resume(saved, schedule, ())
    return crossing


def test_history_is_repeated_at_its_windows() -> None:
    """With the numbers, windows and revisions that it had."""
    history = [act_at(3, lr(0.5), 1), act_at(5, lr(0.6), 2)]
    crossing = resumed(history)
    rates = []

    for window in range(7):
        crossing.boundary.cross(window)
        rates.append(crossing.trainer.config.optim.lr)

    assert rates == [0.01, 0.01, 0.01, 0.5, 0.5, 0.6, 0.6]
    assert [a.applied for a in crossing.said(m.Applied)] == history


def test_what_a_checkpoint_has_is_not_repeated() -> None:
    """Actions up to its number are in its live configuration already."""
    first = Crossing()
    first.order(lr(0.5))
    first.boundary.cross(3)
    saved = msgspec.to_builtins(first.boundary.live)

    second = resumed([act_at(3, lr(0.5), 1), act_at(5, lr(0.6), 2)], saved)
    second.boundary.cross(4)

    assert second.trainer.config.optim.lr == 0.5
    assert (second.boundary.live.seq, second.boundary.live.revision) == (1, 2)
    assert second.said(m.Applied) == []


def test_a_number_is_not_given_twice_after_a_rollback() -> None:
    """A window that is passed over comes before changes with lower numbers; the next change comes after all of them."""
    avoid = act_at(2, m.Avoid(cause=Cause.DATA), 2)
    crossing = resumed([act_at(5, lr(0.5), 1), avoid])
    crossing.boundary.cross(5)
    crossing.order(lr(0.6))

    crossing.boundary.cross(6)

    assert [a.applied.seq for a in crossing.said(m.Applied)] == [2, 1, 3]


def test_new_orders_wait_for_history() -> None:
    """An action ordered meanwhile comes after all that was numbered before it."""
    crossing = resumed([act_at(5, lr(0.6), 1)])
    crossing.order(lr(0.7))

    crossing.boundary.cross(0)
    before = crossing.trainer.config.optim.lr
    crossing.boundary.cross(5)

    assert (before, crossing.trainer.config.optim.lr) == (0.01, 0.7)
    assert [a.applied.seq for a in crossing.said(m.Applied)] == [1, 2]


def test_history_that_no_longer_fits_is_told() -> None:
    """The job file was changed under it: the change is left out, its number is not given again."""
    crossing = resumed(
        [act_at(1, m.Configure(changes={"amp.min_scale": 2.0**20}))], amp={"max_scale": 2.0**10}
    )

    crossing.boundary.cross(1)
    crossing.order(lr(0.7))
    crossing.boundary.cross(2)

    assert [w.topic for w in crossing.said(m.Warned)] == ["journal"]
    assert [a.applied.seq for a in crossing.said(m.Applied)] == [2]


def test_what_was_pending_is_carried_out_first() -> None:
    """Accepted before the crash and never applied: at the first boundary, before newer orders."""
    crossing = Crossing()
    crossing.boundary.resume(None, (), [m.Act(request_id="old", action=lr(0.5))])
    crossing.order(lr(0.6), "new")

    crossing.boundary.cross(4)

    assert [a.applied.request_id for a in crossing.said(m.Applied)] == ["old", "new"]


def test_resetting_the_statistics_begins_a_span() -> None:
    """The job's counts stay."""
    crossing = Crossing()
    toy.run(crossing.trainer, range(2))
    crossing.order(m.Reset(what="stats"))

    crossing.boundary.cross(2)

    assert (crossing.trainer.ledger.span.windows, crossing.trainer.ledger.job.windows) == (0, 2)


def test_resetting_the_scaler_goes_back_to_the_first_scale() -> None:
    """Whatever overflows have made of it."""
    crossing = Crossing(amp={"dtype": "float16", "init_scale": 64.0})
    toy.run(crossing.trainer, range(2), {0: "overflow", 1: "overflow"})
    crossing.order(m.Reset(what="scaler"))

    crossing.boundary.cross(2)
    (record,) = toy.run(crossing.trainer, range(2, 3))

    assert record.scale == 64.0


def test_resetting_the_budget_forgives_the_epoch() -> None:
    """The limit can be passed, and acted on, once more."""
    crossing = Crossing(amp={"max_fp32_fallbacks": 0})
    crossing.judge(0)
    crossing.order(m.Reset(what="fallback-budget"))
    crossing.boundary.cross(1)

    crossing.judge(1)

    assert [(limit.window, limit.fallbacks) for limit in crossing.said(m.LimitReached)] == [(0, 1), (1, 1)]


def test_the_limit_is_of_windows_in_an_epoch() -> None:
    """Passed by the one after the last that is allowed, told once, and counted anew in the next epoch."""
    crossing = Crossing(amp={"max_fp32_fallbacks": 2})

    for window in range(12):
        crossing.judge(window, epoch=window // 6, fell=window % 6 != 0)

    assert [(limit.window, limit.epoch, limit.fallbacks) for limit in crossing.said(m.LimitReached)] == [
        (3, 0, 3), (9, 1, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "held", "failed", "dtype"),
    [
        ("warn", False, False, "float16"),
        ("pause", True, False, "float16"),
        ("abort", False, True, "float16"),
        ("raise_dtype", False, False, "float32"),
    ],
)
def test_the_limit_does_what_the_file_says(action: str, held: bool, failed: bool, dtype: str) -> None:
    """Each of its four actions, with the numbers in the reason."""
    crossing = Crossing(amp={"dtype": "float16", "max_fp32_fallbacks": 0, "on_fallback_limit": action})
    crossing.trainer.capability = Capability(device="old", native=(Precision.FLOAT16,))

    crossing.judge(4)
    crossing.boundary.cross(5)

    boundary = crossing.boundary
    assert (bool(boundary.hold_reason), bool(boundary.failure)) == (held, failed)
    assert crossing.trainer.config.amp.dtype == dtype
    assert crossing.said(m.LimitReached)[0].action == action
    if held or failed:
        assert "1 windows of epoch 0" in boundary.hold_reason + boundary.failure


def test_a_raised_dtype_is_a_revision_of_policys() -> None:
    """It takes effect before the next window, is numbered like any change, and says that policy made it."""
    crossing = Crossing(amp={"dtype": "float16", "max_fp32_fallbacks": 0, "on_fallback_limit": "raise_dtype"})
    crossing.trainer.capability = Capability(device="new", native=(Precision.FLOAT16, Precision.BFLOAT16))

    crossing.judge(4)
    crossing.boundary.cross(5)

    (report,) = crossing.said(m.Applied)
    assert (report.applied.author, report.applied.window, report.applied.revision) == ("policy", 5, 2)
    assert report.choice.precision == "bfloat16"


@pytest.mark.parametrize(
    ("action", "held", "failed"), [("skip", False, False), ("pause", True, False), ("abort", False, True)]
)
def test_a_window_that_was_never_applied_does_what_the_file_says(
    action: str, held: bool, failed: bool
) -> None:
    """The reason names window, precision and cause."""
    crossing = Crossing(amp={"on_bad_window": action})

    crossing.judge(9, skipped=Cause.DATA)

    reason = crossing.boundary.hold_reason + crossing.boundary.failure
    assert (bool(crossing.boundary.hold_reason), bool(crossing.boundary.failure)) == (held, failed)
    assert reason in ("", "window 9 is not finite even at float32 (cause: data)")


def test_a_decision_of_the_journal_is_not_made_twice() -> None:
    """A run that is repeated raises its dtype where it did, once, by the journal."""
    options = {"amp": {"dtype": "float16", "max_fp32_fallbacks": 0, "on_fallback_limit": "raise_dtype"}}
    decided = msgspec.structs.replace(
        act_at(5, m.Configure(changes={"amp.dtype": "bfloat16"})), author="policy"
    )
    crossing = resumed([decided], **options)

    crossing.judge(4)
    crossing.boundary.cross(5)

    assert [a.applied.seq for a in crossing.said(m.Applied)] == [1]
    assert crossing.trainer.config.amp.dtype == "bfloat16"
    assert crossing.said(m.LimitReached) == []


def test_stages_follow_a_change() -> None:
    """Every stage that reads the configuration has the new one before the next window."""
    crossing = Crossing(amp={"dtype": "float16"})
    crossing.order(m.Configure(changes={"amp.scale_loss": False}))
    crossing.boundary.cross(1)
    inner = Script({"losses": torch.ones(1)})

    stage_of(crossing.trainer, "scaler")(attempt_at("float16"), inner)

    assert inner.attempts[0].loss_scale is None


def test_a_dropped_key_leaves_the_overlay() -> None:
    """It takes the job file's value, and a checkpoint no longer holds a value of its own for it."""
    crossing = Crossing()
    crossing.order(lr(0.5))
    crossing.boundary.cross(1)
    crossing.order(m.Configure(changes={"optim.lr": 0.1}, dropped=("optim.lr",)))

    crossing.boundary.cross(2)

    assert crossing.trainer.config.optim.lr == toy.trainer().config.optim.lr
    assert (crossing.boundary.live.overrides, crossing.boundary.live.revision) == ({}, 3)


def test_a_dropped_key_follows_an_edited_job_file() -> None:
    """When history is repeated on a job file that was edited since, its value holds, not that of then."""
    crossing = Crossing(optim={"lr": 0.125})
    dropped = m.Configure(changes={"optim.lr": 0.1}, dropped=("optim.lr",))
    schedule = [
        m.AppliedAction(seq=1, window=1, revision=2, action=lr(0.5)),
        m.AppliedAction(seq=2, window=2, revision=3, action=dropped),
    ]
    crossing.boundary.resume(None, schedule, [])

    crossing.boundary.cross(2)

    assert (crossing.trainer.config.optim.lr, crossing.boundary.live.overrides) == (0.125, {})
