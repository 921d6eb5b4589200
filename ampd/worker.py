"""The composition root of a rank: link first, then torch, then the loop.

`Hello` is sent before torch is imported, so that the supervisor knows within a tenth of a second that its child is
alive. The result of a run is the last report, `Finished`; the exit code only matters where there is none. A problem
that an operator must mend (any AmpdError) is reported as a failed run; anything else is a crash, with its traceback
in worker.log, and the supervisor starts the worker again, as it does with one that left to roll back.

Its step loop declares phases in the pulse (`control.lifeline`), which the supervisor judges; `init` lasts until the
first window.

Signals: SIGTERM without a Stop before it means that the whole group is being torn down: leave without saving.
SIGUSR1 is the parent-death signal: the supervisor is gone, save and leave. SIGUSR2 writes all stacks.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import queue
import signal
from types import FrameType

from ampd import failpoints
from ampd.control.lifeline import PulsePage, answer_stacks_signal
from ampd.control.worker_link import WorkerLink
from ampd.core import messages as m
from ampd.core.phase import Phase
from ampd.errors import AmpdError, LinkError

_PR_SET_PDEATHSIG = 1
_LINK_DRAIN_SECONDS = 10.0
_ORPHAN_DRAIN_SECONDS = 0.2  # nobody listens any more, and a new daemon waits for our lock


def main() -> None:
    """Run one rank to its end."""
    arguments = _arguments()
    failpoints.arm(os.environ)
    answer_stacks_signal(os.environ)
    pulse = PulsePage.open(arguments.link)
    pulse.declare(Phase.INIT)
    link = WorkerLink(arguments.link, arguments.rank)
    parent = _watch_parent(link.orders)
    link.start()
    link.report(m.Hello(rank=arguments.rank, pid=os.getpid()))
    finished: m.Finished | None
    try:
        finished = _work(link, pulse)
    except AmpdError as error:
        finished = m.Finished(
            result="failed",
            window=-1,
            message=str(error),
            hint=getattr(error, "hint", ""),
            exit_code=int(error.exit_code),
        )
    if finished is not None:
        link.report(finished)
    link.close(_LINK_DRAIN_SECONDS if os.getppid() == parent else _ORPHAN_DRAIN_SECONDS)


def _work(link: WorkerLink, pulse: PulsePage) -> m.Finished | None:
    start = link.orders.get()
    if not isinstance(start, m.Start):
        raise LinkError(f"the first order must be Start, not {type(start).__name__}")
    from ampd.engine.job import prepare  # torch is loaded here, after Hello

    loop, writer = prepare(start, link.orders, link.report, pulse.declare)
    try:
        return loop.run()
    finally:
        writer.close()


def _watch_parent(orders: queue.SimpleQueue[m.Order]) -> int:
    """Ask the kernel for SIGUSR1 when the supervisor dies (it may have died before we asked); returns its pid."""
    parent = os.getppid()

    def save_and_leave(_signal: int, _frame: FrameType | None) -> None:
        orders.put(m.Stop(save=True))

    def leave(_signal: int, _frame: FrameType | None) -> None:
        orders.put(m.Leave())

    signal.signal(signal.SIGUSR1, save_and_leave)
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    if os.getppid() != parent:
        orders.put(m.Stop(save=True))
    return parent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ampd.worker", description="One rank; started by `ampd start`."
    )
    parser.add_argument("--link", required=True)
    parser.add_argument("--rank", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
