"""Supervisor and worker over a real socket: both directions, restarts, floods and garbled frames."""

from __future__ import annotations

import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pytest
import zmq

from ampd.control import worker_link
from ampd.control.endpoints import Presence, probe
from ampd.control.link import SupervisorLink
from ampd.control.worker_link import WorkerLink
from ampd.core import messages as m
from ampd.core.ledger import Counts, Span
from ampd.core.precision import Precision
from ampd.errors import JobConflictError, LinkError
from tests.control.served import DEADLINE_SECONDS, Dealer, LoopThread


class Supervisor:
    """A supervisor's link on a loop in a thread, with everything that it was told."""

    def __init__(self, directory: Path, handle: Callable[[int, m.Report], None] | None = None) -> None:
        self.reports: queue.SimpleQueue[tuple[int, m.Report]] = queue.SimpleQueue()
        self.errors: queue.SimpleQueue[LinkError] = queue.SimpleQueue()
        self.link = SupervisorLink.bind(directory)
        self.loop = LoopThread()
        self._handle = handle or (lambda rank, report: self.reports.put((rank, report)))

    def __enter__(self) -> Self:
        self.loop.__enter__()
        self._ended = self.loop.begin(self.link.serve(self._handle, self.errors.put))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.call(self.link.close)
        self._ended()
        self.loop.__exit__(kind, error, trace)

    def send(self, rank: int, order: m.Order) -> None:
        self.loop.call(self.link.send, rank, order)

    def next(self) -> tuple[int, m.Report]:
        return self.reports.get(timeout=DEADLINE_SECONDS)


@pytest.fixture
def supervisor(directory: Path) -> Iterator[Supervisor]:
    """A supervisor's link that is being served."""
    directory.mkdir()
    with Supervisor(directory) as running:
        yield running


@pytest.fixture
def worker(supervisor: Supervisor) -> Iterator[WorkerLink]:
    """Rank 0, which has said Hello."""
    link = WorkerLink(supervisor.link.endpoint, 0)
    link.start()
    link.report(m.Hello(rank=0, pid=1))
    assert supervisor.next() == (0, m.Hello(rank=0, pid=1))
    yield link
    link.close(DEADLINE_SECONDS)


def snapshot(window: int) -> m.Snapshot:
    """The figures of a rank at a window."""
    return m.Snapshot(
        rank=0, window=window, total_windows=100, epoch=0, revision=1, precision=Precision.FLOAT16, counts=Counts(),
        job=Counts(skipped={"data": 1}), span=Counts(), span_scale=Span(), span_loss=Span(), loss=1.5, grad_norm=None,
        lr=0.1, scale=2.0, seconds={"train": 1.0}, memory={},
    )  # fmt: skip


def skipped(window: int) -> m.Skipped:
    return m.Skipped(window=window, cause="data")  # type: ignore[arg-type]  # the wire's word for it


def encode(message: m.Report) -> bytes:
    return msgspec.msgpack.encode(message)


def test_a_report_arrives_with_its_rank(supervisor: Supervisor, worker: WorkerLink) -> None:
    """What a worker reports is what the supervisor is told, field for field."""
    worker.report(snapshot(3))

    assert supervisor.next() == (0, snapshot(3))


def test_an_order_arrives(supervisor: Supervisor, worker: WorkerLink) -> None:
    """What the supervisor orders is in the worker's queue."""
    order = m.Act(
        request_id="r1", action=m.Configure(changes={"amp.dtype": "bfloat16"}, base=1), author="alice"
    )

    supervisor.send(0, order)

    assert worker.orders.get(timeout=DEADLINE_SECONDS) == order


def test_every_rank_gets_its_own_orders(supervisor: Supervisor, worker: WorkerLink) -> None:
    """Orders go to the rank that they are for."""
    other = WorkerLink(supervisor.link.endpoint, 1)
    other.start()
    other.report(m.Hello(rank=1, pid=2))
    assert supervisor.next()[0] == 1

    supervisor.send(1, m.Pause(request_id="one"))
    supervisor.send(0, m.Pause(request_id="zero"))

    assert worker.orders.get(timeout=DEADLINE_SECONDS) == m.Pause(request_id="zero")
    assert other.orders.get(timeout=DEADLINE_SECONDS) == m.Pause(request_id="one")
    other.close(DEADLINE_SECONDS)


def test_an_order_for_nobody_is_an_error(supervisor: Supervisor) -> None:
    """A rank that never spoke cannot be ordered: that is a bug of the caller."""
    with pytest.raises(LinkError, match="rank 3, which has not said Hello"):
        supervisor.send(3, m.Pause(request_id="p"))


def test_a_restarted_worker_takes_over_its_rank(supervisor: Supervisor, worker: WorkerLink) -> None:
    """After a second Hello of a rank, orders go to the new worker alone."""
    second = WorkerLink(supervisor.link.endpoint, 0)
    second.start()
    second.report(m.Hello(rank=0, pid=2))
    assert supervisor.next() == (0, m.Hello(rank=0, pid=2))

    supervisor.send(0, m.Pause(request_id="p"))

    assert second.orders.get(timeout=DEADLINE_SECONDS) == m.Pause(request_id="p")
    assert worker.orders.empty()
    second.close(DEADLINE_SECONDS)


def test_the_last_words_of_a_replaced_worker_are_dropped(supervisor: Supervisor, worker: WorkerLink) -> None:
    """A worker whose rank has a new one is not heard any more."""
    with Dealer(supervisor.link.endpoint) as old:
        old.socket.send(encode(m.Hello(rank=1, pid=1)))
        assert supervisor.next()[0] == 1
        new = WorkerLink(supervisor.link.endpoint, 1)
        new.start()
        new.report(m.Hello(rank=1, pid=2))
        assert supervisor.next() == (1, m.Hello(rank=1, pid=2))
        old.socket.send(encode(m.Going(window=9)))
        old.socket.send(b"the end")
        supervisor.errors.get(timeout=DEADLINE_SECONDS)

    assert supervisor.reports.empty()
    new.close(DEADLINE_SECONDS)


def test_an_order_to_a_dead_worker_is_dropped_and_counted(supervisor: Supervisor) -> None:
    """Once a worker's connection is gone, orders to it vanish; its exit is what counts."""
    with Dealer(supervisor.link.endpoint) as dying:
        dying.socket.send(encode(m.Hello(rank=0, pid=1)))
        supervisor.next()
    ends = time.monotonic() + DEADLINE_SECONDS
    while not supervisor.link.undelivered and time.monotonic() < ends:
        supervisor.send(0, m.Pause(request_id="p"))

    assert supervisor.link.undelivered


@pytest.mark.parametrize("frames", [(b"junk",), (b"",), (b"\xc1",), (b"a", b"b"), (b"\x91" * 5000,)])
def test_a_garbled_report_is_told_and_survived(frames: tuple[bytes, ...], supervisor: Supervisor) -> None:
    """What cannot be read is a LinkError for the callback, and the next report is heard."""
    with Dealer(supervisor.link.endpoint) as dealer:
        dealer.socket.send_multipart(frames)
        assert isinstance(supervisor.errors.get(timeout=DEADLINE_SECONDS), LinkError)
        dealer.socket.send(encode(m.Hello(rank=0, pid=1)))

        assert supervisor.next() == (0, m.Hello(rank=0, pid=1))


def test_a_bug_at_one_report_does_not_cost_the_next(directory: Path) -> None:
    """Where the supervisor's own function raises, the loop is told and what waits behind is still handed over."""
    directory.mkdir()
    heard: queue.SimpleQueue[m.Report] = queue.SimpleQueue()
    is_sent = threading.Event()

    def fail(rank: int, report: m.Report) -> None:
        is_sent.wait(DEADLINE_SECONDS)
        heard.put(report)
        raise ZeroDivisionError("bug")

    with Supervisor(directory, fail) as supervisor, Dealer(supervisor.link.endpoint) as dealer:
        for pid in range(10):
            dealer.socket.send(encode(m.Hello(rank=0, pid=pid)))
        is_sent.set()

        assert [heard.get(timeout=DEADLINE_SECONDS) for _ in range(10)] == [
            m.Hello(rank=0, pid=n) for n in range(10)
        ]
        supervisor.loop.call(lambda: None)
    assert {type(failure["exception"]) for failure in supervisor.loop.failures} == {ZeroDivisionError}


def test_a_report_before_hello_is_told(supervisor: Supervisor) -> None:
    """Nobody is a rank before it has said so."""
    with Dealer(supervisor.link.endpoint) as dealer:
        dealer.socket.send(encode(m.Going(window=1)))

        assert "has not said Hello" in str(supervisor.errors.get(timeout=DEADLINE_SECONDS))


def test_a_garbled_order_is_reported(directory: Path) -> None:
    """A worker that is sent nonsense says so and goes on."""
    directory.mkdir()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        router.rcvtimeo = round(1000 * DEADLINE_SECONDS)
        router.bind(f"ipc://{directory}/raw.sock")
        link = WorkerLink(f"ipc://{directory}/raw.sock", 0)
        link.start()
        link.report(m.Hello(rank=0, pid=1))
        voice, _ = router.recv_multipart()
        router.send_multipart([voice, b"junk"])
        router.send_multipart([voice, msgspec.msgpack.encode(m.Pause(request_id="p"))])

        assert msgspec.msgpack.decode(router.recv_multipart()[1])["topic"] == "link.garbled"
        assert link.orders.get(timeout=DEADLINE_SECONDS) == m.Pause(request_id="p")
        link.close(DEADLINE_SECONDS)


def test_a_report_that_cannot_be_encoded_is_told(supervisor: Supervisor, worker: WorkerLink) -> None:
    """A bug in a report's content makes a warning, and not a mute worker."""
    worker.report(m.Evaluated(window=1, figures={"loss": object()}, seconds=0.1))  # type: ignore[dict-item]  # the bug

    _, report = supervisor.next()

    assert isinstance(report, m.Warned) and report.topic == "link.unsendable"


def test_reports_from_many_threads_all_arrive(supervisor: Supervisor, worker: WorkerLink) -> None:
    """Every event of every thread arrives once, in the order of its thread."""

    def tell(start: int) -> None:
        for window in range(start, start + 500):
            worker.report(m.Going(window=window))

    threads = [threading.Thread(target=tell, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    told = [
        report.window for _, report in (supervisor.next() for _ in range(2000)) if isinstance(report, m.Going)
    ]
    for thread in threads:
        thread.join()

    assert sorted(told) == [1000 * number + i for number in range(4) for i in range(500)]
    assert all([w for w in told if w // 1000 == n] == list(range(1000 * n, 1000 * n + 500)) for n in range(4))


def test_only_the_newest_snapshot_is_kept(supervisor: Supervisor) -> None:
    """Snapshots that nobody took yet are replaced, and the last one is sent."""
    link = WorkerLink(supervisor.link.endpoint, 0)
    link.report(m.Hello(rank=0, pid=1))
    for window in range(1000):
        link.report(snapshot(window))
    link.start()
    link.close(DEADLINE_SECONDS)

    assert [supervisor.next()[1] for _ in range(2)] == [m.Hello(rank=0, pid=1), snapshot(999)]
    assert supervisor.reports.empty()


def test_a_flood_is_bounded_and_its_gap_is_told(supervisor: Supervisor) -> None:
    """Over the limit events of trouble are dropped and counted, answers are not."""
    link = WorkerLink(supervisor.link.endpoint, 0)
    link.report(m.Hello(rank=0, pid=1))
    for window in range(worker_link.MAX_WAITING + 99):
        link.report(skipped(window))
    link.report(m.Finished(result="completed", window=5))
    link.start()
    link.close(DEADLINE_SECONDS)

    heard = [supervisor.next()[1] for _ in range(worker_link.MAX_WAITING + 2)]
    assert [report.window for report in heard if isinstance(report, m.Skipped)] == list(
        range(worker_link.MAX_WAITING - 1)
    )
    assert any(isinstance(report, m.Finished) for report in heard)
    assert [report.events for report in heard if isinstance(report, m.Lost)] == [100]


def test_a_snapshot_before_the_end_is_sent_before_it(supervisor: Supervisor, worker: WorkerLink) -> None:
    """Finished is the last that is heard of a worker, however fast it follows."""
    for round_ in range(200):
        worker.report(snapshot(round_))
        worker.report(m.Going(window=round_))
        while True:
            _, report = supervisor.next()
            if isinstance(report, m.Going):
                break
            assert isinstance(report, m.Snapshot)
        assert supervisor.reports.empty()


def test_close_sends_what_waits(supervisor: Supervisor, worker: WorkerLink) -> None:
    """What was reported before close arrives, with nobody asking for it."""
    for window in range(1000):
        worker.report(m.Going(window=window))

    worker.close(DEADLINE_SECONDS)

    assert [supervisor.next()[1] for _ in range(1000)] == [m.Going(window=window) for window in range(1000)]


def test_close_does_not_wait_for_nobody(directory: Path) -> None:
    """Without a supervisor, close gives up after its timeout; and a second close is nothing."""
    link = WorkerLink(f"ipc://{directory}/nobody.sock", 0)
    link.start()
    link.report(m.Hello(rank=0, pid=1))

    link.close(0.05)
    link.close(0.05)


def test_a_worker_may_come_before_its_supervisor(directory: Path) -> None:
    """What is reported before the supervisor listens arrives once it does."""
    directory.mkdir()
    link = WorkerLink(f"ipc://{directory}/link.sock", 0)
    link.start()
    link.report(m.Hello(rank=0, pid=1))

    with Supervisor(directory) as late:
        assert late.next() == (0, m.Hello(rank=0, pid=1))
        link.close(DEADLINE_SECONDS)


def test_the_links_socket_is_the_owners(supervisor: Supervisor, directory: Path) -> None:
    """Nobody else may speak as a worker; after close the socket is gone."""
    assert stat.S_IMODE((directory / "link.sock").stat().st_mode) == 0o600


def test_a_live_link_is_not_stolen(supervisor: Supervisor, directory: Path) -> None:
    """A second supervisor on the same directory is refused."""
    with pytest.raises(JobConflictError):
        SupervisorLink.bind(directory)

    assert probe(directory / "link.sock") is Presence.LISTENING


def test_nothing_is_left_open(directory: Path) -> None:
    """Closing both ends gives back every file descriptor."""
    directory.mkdir()
    with Supervisor(directory):
        pass
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Supervisor(directory) as supervisor:
            link = WorkerLink(supervisor.link.endpoint, 0)
            link.start()
            link.close(DEADLINE_SECONDS)

    assert len(os.listdir("/proc/self/fd")) == before
    assert not (directory / "link.sock").exists()
