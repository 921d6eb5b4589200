"""A worker without torch: speaks the link's protocol for real, and goes wrong where it is told to.

It "trains" by counting windows, keeps its window in `fake.json` in the job directory as a checkpoint, and applies
actions at the next window. Faults are words on its command line, counted over restarts in the job directory.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from ampd import failpoints
from ampd.control.worker_link import WorkerLink
from ampd.core import change, edits
from ampd.core import messages as m
from ampd.core.config import JobConfig
from ampd.core.ledger import Counts, Span
from ampd.core.precision import Capability, Choice, Precision

CHOICE = Choice(precision=Precision.FLOAT32, reason="a fake computes nothing")


class FakeWorker:
    """One run of the fake."""

    def __init__(self, link: WorkerLink, faults: argparse.Namespace) -> None:
        self.link = link
        self.faults = faults
        self.window = self.first = 0
        self.revision = 1
        self.seq = 0
        self.is_paused = False
        self.config: JobConfig
        self.directory = Path()

    def run(self) -> m.Finished:
        start = self.link.orders.get()
        assert isinstance(start, m.Start), start
        if self.faults.refuse:
            return m.Finished(
                result="failed", window=-1, message="the device refuses", hint="ask less", exit_code=2
            )
        self._load(start)
        if self.faults.hang_loading:
            time.sleep(600)
        self._say_ready()
        self._snapshot()
        for act in start.pending:
            self._apply(act)
        return self._loop(start.config.job.windows or 0)

    def _load(self, start: m.Start) -> None:
        self.config, self.directory = start.config, Path(start.directory)
        saved = self.directory / "fake.json"
        if saved.exists():
            self.window = self.first = json.loads(saved.read_text())["window"]
        for done in start.schedule:
            self.seq, self.revision = done.seq, done.revision
            if isinstance(done.action, m.Configure):
                self.config = edits.repeated(self.config, done.action, start.config)

    def _say_ready(self) -> None:
        assert self.config.job.windows is not None
        self.link.report(
            m.Ready(
                window=self.window,
                total_windows=self.config.job.windows,
                windows_per_epoch=10,
                resumed=self.window > 0,
                revision=self.revision,
                config=self.config,
                capability=Capability(device="fake", native=()),
                choice=CHOICE,
                parameters=1,
                torch_version="none",
            )
        )

    def _loop(self, windows: int) -> m.Finished:
        while self.window < windows or self.is_paused:
            self._crash_where_told()
            finished = self._take_orders()
            if finished is not None:
                return finished
            if not self.is_paused:
                self.window += 1
                time.sleep(self.faults.window_seconds)
                self._snapshot()
        self._save("")
        return m.Finished(result="completed", window=self.window)

    def _crash_where_told(self) -> None:
        if self.faults.crash_at is None or self.window < self.faults.crash_at:
            return
        crashes = self.directory / "crashes"
        crashes.write_text("x" + (crashes.read_text() if crashes.exists() else ""))
        if len(crashes.read_text()) <= self.faults.crashes:
            print("the fake was told to crash", file=sys.stderr, flush=True)
            os._exit(9)

    def _take_orders(self) -> m.Finished | None:
        if self.link.orders.empty():
            if self.is_paused:
                time.sleep(0.02)
            return None
        match order := self.link.orders.get():
            case m.Act():
                self._apply(order)
            case m.Checkpoint():
                self._save(order.request_id)
            case m.Pause():
                self.is_paused = True
                self.link.report(m.Holding(window=self.window, reason="asked", request_id=order.request_id))
            case m.Resume():
                self.is_paused = False
                self.link.report(m.Going(window=self.window, request_id=order.request_id))
            case m.Stop():
                return self._stop(order)
        return None

    def _stop(self, order: m.Stop) -> m.Finished:
        if self.faults.hang_stopping:
            time.sleep(600)
        if order.save:
            self._save("")
        return m.Finished(result="stopped", window=self.window, message="stopped")

    def _apply(self, act: m.Act) -> None:
        assert not isinstance(act.action, m.Cancel), "the fake puts nothing on trial"
        if isinstance(act.action, m.Configure) and act.action.base not in (None, self.revision):
            message = f"revision {self.revision} holds"
            self.link.report(m.Refused(request_id=act.request_id, code="CONFLICT", message=message))
            return
        self.seq += 1
        moved: tuple[change.Difference, ...] = ()
        if isinstance(act.action, m.Configure):
            changed = change.change(self.config, act.action.changes)
            moved = change.differences(self.config, changed)
            self.config, self.revision = changed, self.revision + 1
        done = m.AppliedAction(
            seq=self.seq,
            window=self.window,
            revision=self.revision,
            action=act.action,
            request_id=act.request_id,
            author=act.author,
            reason=act.reason,
        )
        self.link.report(m.Applied(applied=done, differences=moved))

    def _save(self, request_id: str) -> None:
        (self.directory / "saving").touch()
        time.sleep(self.faults.save_seconds)
        while self.faults.hold_saves and not (self.directory / "may-save").exists():
            time.sleep(0.01)
        (self.directory / "saving").unlink()
        (self.directory / "fake.json").write_text(json.dumps({"window": self.window}))
        self.link.report(
            m.Saved(
                window=self.window,
                path="fake.json",
                bytes=12,
                seconds=0.0,
                stall_seconds=0.0,
                request_id=request_id,
            )
        )

    def _snapshot(self) -> None:
        done = self.window - self.first
        counts, job = Counts(windows=done, applied=done), Counts(windows=self.window, applied=self.window)
        self.link.report(
            m.Snapshot(
                rank=0,
                window=self.window,
                total_windows=self.config.job.windows or 0,
                epoch=0,
                revision=self.revision,
                precision=Precision.FLOAT32,
                counts=counts,
                job=job,
                span=job,
                span_scale=Span(),
                span_loss=Span(),
                loss=1.0,
                grad_norm=1.0,
                lr=1e-3,
                scale=None,
                seconds={"train": 1.0},
                memory={},
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--crash-at", type=int)
    parser.add_argument("--crashes", type=int, default=1000)
    parser.add_argument("--window-seconds", type=float, default=0.005)
    parser.add_argument("--save-seconds", type=float, default=0.0)
    for fault in ("--refuse", "--hang-loading", "--hang-stopping", "--hold-saves"):
        parser.add_argument(fault, action="store_true")
    parser.add_argument("--link")
    parser.add_argument("--rank", type=int)
    arguments = parser.parse_args()
    failpoints.arm(os.environ)
    link = WorkerLink(arguments.link, arguments.rank)
    signal.signal(signal.SIGTERM, _leave)
    link.start()
    link.report(m.Hello(rank=arguments.rank, pid=os.getpid()))
    link.report(FakeWorker(link, arguments).run())
    link.close(5.0)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    os._exit(0)


if __name__ == "__main__":
    main()
