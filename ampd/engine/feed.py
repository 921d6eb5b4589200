"""The windows of the whole job, in order, from the workload's epochs: any position is reached in O(1).

On CUDA a thread prepares windows ahead and pins their memory, so that building a batch and copying it to the device
overlap with the step. On the CPU the loop builds them itself: a second Python thread would take the interpreter
from the step, and there is nothing to overlap with.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import torch
from msgspec.structs import replace

from ampd.engine.window import MicroBatch, Window
from ampd.engine.workload import Workload
from ampd.errors import WorkloadError


class Feed:
    """An iterator of windows from number `start` on; `close` ends its thread where it has one."""

    def __init__(self, workload: Workload, start: int, *, ahead: int = 0) -> None:
        self._windows = _all_windows(workload, start)
        self._queue: queue.Queue[Window | BaseException] = queue.Queue(maxsize=max(1, ahead))
        self._closing = threading.Event()
        self._thread = (
            threading.Thread(target=self._prefetch, name="ampd-feed", daemon=True) if ahead else None
        )
        if self._thread is not None:
            self._thread.start()

    def __next__(self) -> Window:
        if self._thread is None:
            return next(self._windows)
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """End the thread; windows prepared ahead are dropped."""
        self._closing.set()
        while self._thread is not None and self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _prefetch(self) -> None:
        try:
            for window in self._windows:
                self._queue.put(replace(window, micro_batches=tuple(map(_pinned, window.micro_batches))))
                if self._closing.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  # the thread's top: the loop raises it where it takes the window
            self._queue.put(error)


def _all_windows(workload: Workload, start: int) -> Iterator[Window]:
    epoch, position = divmod(start, workload.windows_per_epoch)
    while True:
        for micro_batches in _epoch(workload, epoch, position):
            yield Window(
                number=epoch * workload.windows_per_epoch + position, epoch=epoch, micro_batches=micro_batches
            )
            position += 1
        epoch, position = epoch + 1, 0


def _epoch(workload: Workload, epoch: int, start: int) -> Iterator[tuple[MicroBatch, ...]]:
    windows = workload.windows(epoch, start)
    for position in range(start, workload.windows_per_epoch):
        micro_batches = next(windows, None)
        if not micro_batches:
            raise WorkloadError(
                f"epoch {epoch} ended after {position} windows, windows_per_epoch says {workload.windows_per_epoch}; "
                "the workload's windows() must yield that many, each with at least one micro-batch"
            )
        if not isinstance(micro_batches, tuple) or not all(isinstance(m, MicroBatch) for m in micro_batches):
            raise WorkloadError(
                f"window {position} of epoch {epoch} is of type {_type_of(micro_batches)}; the workload's windows() must yield "
                "tuples of MicroBatch"
            )
        yield micro_batches


def _type_of(yielded: object) -> str:
    inner = sorted({type(part).__name__ for part in yielded}) if isinstance(yielded, tuple) else []
    return f"{type(yielded).__name__}{inner or ''}"


def _pinned(micro_batch: MicroBatch) -> MicroBatch:
    if not torch.cuda.is_available():
        return micro_batch
    return replace(
        micro_batch, tensors={name: tensor.pin_memory() for name, tensor in micro_batch.tensors.items()}
    )
