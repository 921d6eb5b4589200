"""The composition root of a rank: link first, then torch, then the loop.

`Hello` is sent before torch is imported, so that the supervisor knows within a tenth of a second that its child is
alive. The result of a run is the last report, `Finished`; the exit code only matters where there is none. A problem
that an operator must mend (any AmpdError) is reported as a failed run; anything else is a crash, with its traceback
in worker.log, and the supervisor starts the worker again, as it does with one that left to roll back.

Its step loop declares phases in the pulse (`control.lifeline`), which the supervisor judges; `init` lasts until the
first window.

Signals: SIGTERM without a Stop before it means that the whole group is being torn down: leave without saving.
SIGUSR1 is the parent-death signal: the supervisor is gone, save and leave. SIGUSR2 writes all stacks.

Under torchrun (`ampd.group`) the parent is its agent. A rank dies with the agent, which is how a group that is killed
is gone whole and at once, and of SIGTERM, since it may wait for a rank that is gone; that the supervisor is gone is seen by a thread that waits for it (a pidfd), and rank 0 then
saves and takes the group along. One rank of each node, its first, speaks for it: it tells what happens and the result, and on the
node that leads it is rank 0, which gets the order to start. The others tell figures, and a failure of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import queue
import select
import signal
import threading
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
    pulse = PulsePage.open(arguments.link, arguments.rank)
    pulse.declare(Phase.INIT)
    link = WorkerLink(arguments.link, arguments.rank)
    if arguments.agent is None:
        _watch_parent(link.orders)
    else:
        _join_group(link.orders, arguments.agent, arguments.supervisor)
    link.start()
    link.report(m.Hello(rank=arguments.rank, pid=os.getpid()))
    try:
        finished = _finished(link, pulse, arguments)
        pulse.withdraw()
        if finished is not None and (arguments.rank == 0 or finished.result == "failed"):
            link.report(finished)
    finally:  # what was said before a crash is heard too
        is_heard = _lives(arguments.supervisor)
        link.close(_LINK_DRAIN_SECONDS if is_heard else _ORPHAN_DRAIN_SECONDS)


def _finished(link: WorkerLink, pulse: PulsePage, arguments: argparse.Namespace) -> m.Finished | None:
    try:
        return _work(link, pulse, speaks=arguments.rank == 0, leads=not arguments.follows)
    except AmpdError as error:
        return m.Finished(
            result="failed",
            window=-1,
            message=str(error),
            hint=getattr(error, "hint", ""),
            exit_code=int(error.exit_code),
        )


def _work(link: WorkerLink, pulse: PulsePage, *, speaks: bool, leads: bool) -> m.Finished | None:
    start = link.orders.get() if speaks and leads else None
    if not isinstance(start, m.Start | None):
        raise LinkError(f"the first order must be Start, not {type(start).__name__}")
    from ampd.engine.job import prepare  # torch is loaded here, after Hello

    loop, writer = prepare(
        start, link.orders, link.report, pulse.declare, pulse.wait, speaks=speaks, leads=leads
    )
    try:
        return loop.run()
    finally:
        writer.close()


def _watch_parent(orders: queue.SimpleQueue[m.Order]) -> None:
    """Ask the kernel for SIGUSR1 when the supervisor dies (it may have died before we asked)."""
    parent = os.getppid()

    def save_and_leave(_signal: int, _frame: FrameType | None) -> None:
        orders.put(m.Stop(save=True))

    def leave(_signal: int, _frame: FrameType | None) -> None:
        orders.put(m.Leave())

    signal.signal(signal.SIGUSR1, save_and_leave)
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(signal.SIGUSR1)
    if os.getppid() != parent:
        orders.put(m.Stop(save=True))


def _join_group(orders: queue.SimpleQueue[m.Order], agent: int, supervisor: int) -> None:
    """Live no longer than the agent; leave, with a checkpoint, when the supervisor is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler would wait for the collective that hangs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent(signal.SIGKILL)
    if os.getppid() != agent:
        os.kill(os.getpid(), signal.SIGKILL)  # it died before we asked, and its group with it
    threading.Thread(target=_outlive, args=(orders, supervisor), name="supervisor", daemon=True).start()


def _outlive(orders: queue.SimpleQueue[m.Order], supervisor: int) -> None:
    """Wait for the end of the supervisor, then order to save and leave."""
    with contextlib.suppress(ProcessLookupError):
        watched = os.pidfd_open(supervisor)
        select.select([watched], [], [])
    orders.put(m.Stop(save=True))


def _die_with_parent(number: signal.Signals) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def _lives(pid: int) -> bool:
    """Whether a process is there; one of another user is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ampd.worker", description="One rank; started by `ampd start`."
    )
    parser.add_argument("--link", required=True)
    parser.add_argument(
        "--rank", type=int, default=int(os.environ.get("LOCAL_RANK", "0")), help="on this node"
    )
    parser.add_argument("--follows", action="store_true", help="another node has rank 0")
    parser.add_argument("--agent", type=int, help="the torchrun process that the ranks live with")
    parser.add_argument("--supervisor", type=int, default=os.getppid())
    return parser.parse_args()


if __name__ == "__main__":
    main()
