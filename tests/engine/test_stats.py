"""OBSERVE alone: the figures of final outcomes go into the span, and nothing is changed."""

from __future__ import annotations

from tests.engine import toy
from tests.engine.rings import BAD_LOSS, FINITE, Script, attempt_at, stage_of


def test_loss_and_scale_are_taken_into_the_span() -> None:
    """A window's final loss and the scale that it was tried at are averaged."""
    subject = toy.trainer()
    stats = stage_of(subject, "stats")

    for loss, scale in ((1.0, 8.0), (3.0, 4.0)):
        stats(attempt_at("float16"), Script({**FINITE, "loss": loss, "scale": scale}))

    assert (subject.ledger.loss.mean, subject.ledger.scale.mean) == (2.0, 6.0)


def test_a_bad_loss_is_counted_and_left_out() -> None:
    """The mean says how many windows it is not of."""
    subject = toy.trainer()

    stage_of(subject, "stats")(attempt_at("float16"), Script(BAD_LOSS))

    assert (subject.ledger.loss.count, subject.ledger.loss.left_out) == (0, 1)


def test_tracking_can_be_switched_off_and_on() -> None:
    """`amp.track_amp_stats` is live."""
    subject = toy.trainer(amp={"track_amp_stats": False})
    stats = stage_of(subject, "stats")

    stats(attempt_at("float16"), Script(FINITE))
    stats.configure(toy.config(amp={"track_amp_stats": True}))
    stats(attempt_at("float16"), Script(FINITE))

    assert subject.ledger.loss.count == 1


def test_the_outcome_passes_through() -> None:
    """What is observed is what comes out."""
    subject, inner = toy.trainer(), Script(FINITE)
    attempt = attempt_at("float16")

    outcome = stage_of(subject, "stats")(attempt, inner)

    assert inner.attempts == [attempt]
    assert (outcome.loss, outcome.verdict, outcome.clipped) == (1.0, FINITE["verdict"], False)


def test_figures_are_of_windows_not_of_attempts() -> None:
    """Outside of recovery, a window that fell back is one window, with the loss that was applied."""
    subject = toy.trainer(amp={"dtype": "float16"})

    toy.run(subject, range(3), dict.fromkeys(range(3), "overflow"))

    assert (subject.ledger.loss.count, subject.ledger.loss.left_out) == (3, 0)
