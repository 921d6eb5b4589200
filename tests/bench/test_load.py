"""The load of the benchmark counts what it sends and what comes back: a figure of it must not be of its own making."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from ampd.core import protocol as p
from ampd.core.protocol import Code, Refusal, Reply, Request
from tests.bench.load import MALFORMED, Stream, answered, crowd, percentile
from tests.control.served import BOOT, Served, done


def stream(rate: float = 1000.0) -> Stream:
    """Questions for the status."""
    return Stream(
        rate,
        lambda i: msgspec.json.encode(Request(v=p.VERSION, id=i, command=p.Status())),
        lambda reply: reply["type"] == "done",
    )


def test_every_answer_is_counted_once(tmp_path: Path) -> None:
    """As many waits as requests were due, over all clients."""
    asked = stream()
    with Served(tmp_path / "job") as server, crowd(server.endpoint, 4) as clients:
        clients.drive(0.05, {"status": asked})

    assert len(asked.waits.answered) == len(asked.waits.late) == 50
    assert (asked.waits.refused, asked.waits.unanswered) == (0, 0)
    assert min(asked.waits.answered) > 0


def test_refusals_and_silence_are_no_answers(tmp_path: Path) -> None:
    """They are told beside the waits, which are of good answers alone."""
    numbers = iter(range(30))

    def script(request: Request) -> Reply | None:
        kind = next(numbers) % 3
        refusal = Refusal(id=request.id, boot=BOOT, code=Code.BUSY, message="no")
        return (done(request), refusal, None)[kind]

    asked = stream()
    with Served(tmp_path / "job", script) as server, crowd(server.endpoint, 1) as clients:
        for _ in range(30):
            clients._send(0.0, asked)
        clients.drain(patience=0.5)

    assert (len(asked.waits.answered), asked.waits.refused, asked.waits.unanswered) == (10, 10, 10)


def test_a_saturated_server_is_asked_again_and_again(tmp_path: Path) -> None:
    """Each client has one request on its way at any time."""
    asked = stream()
    with Served(tmp_path / "job") as server, crowd(server.endpoint, 4) as clients:
        rate = clients.saturate(0.1, asked)

    assert 0 < rate * 0.1 <= len(asked.waits.answered) == len(asked.waits.late)


def test_ampd_answers_whatever_is_malformed(tmp_path: Path) -> None:
    """Each of the messages that the comparison sends has an answer."""
    with Served(tmp_path / "job") as server:
        assert answered(server.endpoint) == list(MALFORMED)


def test_percentiles_are_values_that_were_seen() -> None:
    """Nothing is interpolated, and the last one is the greatest."""
    values = [float(number) for number in range(1, 101)]

    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert math.isnan(percentile([], 0.5))
