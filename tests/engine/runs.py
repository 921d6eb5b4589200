"""Whole runs of the loop in this process, without a daemon: orders in, reports out, a directory of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ampd.core import messages as m
from ampd.core.phase import Phase
from ampd.engine.assembly import equip
from ampd.engine.job import make_loop
from ampd.engine.loop import Loop
from ampd.engine.ranks import Alone, Orders, Ranks
from ampd.engine.writer import Files
from tests.engine import toy


class Run:
    """One worker's life: made ready on `directory`, then run to its end; `reports` is what it said."""

    def __init__(
        self, directory: Path, *, schedule: Sequence[m.AppliedAction] = (), pending: Sequence[m.Act] = (),
        workload: Any = None, ranks_of: Callable[[Orders], Ranks] = Alone, **sections: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.directory = directory
        self.reports: list[m.Report] = []
        self._hooks: dict[type[m.Report], Callable[[], object]] = {}
        self.orders = toy.orders()
        config = toy.config(**{k: dict(v) for k, v in sections.items()})
        start = m.Start(
            config=config, directory=str(directory), schedule=tuple(schedule), pending=tuple(pending)
        )
        self.workload: Any = workload or toy.Toy()
        self.parts = parts = equip(config, self.workload, toy.CPU, self._take, ranks=ranks_of(self.orders))
        self.loop: Loop
        self.writer: Files
        self.phases: list[Phase] = []
        self.loop, self.writer = make_loop(start, parts, parts.ranks.orders(), self._take, self._declare)

    def on_report(self, kind: type[Any], do: Callable[[], object]) -> None:
        """Do something when the first report of a kind is made, on the thread that makes it."""
        self._hooks[kind] = do

    def _take(self, report: m.Report) -> None:
        self.reports.append(report)
        self._hooks.pop(type(report), lambda: None)()

    def _declare(self, phase: Phase) -> None:
        self.phases.append(phase)

    def finish(self) -> m.Finished:
        """Run to the end of the job, or to a stop that was ordered."""
        finished = self.leave()
        assert finished is not None, "the run rolled back"
        return finished

    def leave(self) -> m.Finished | None:
        """Run until the worker would leave; None where it rolls back."""
        try:
            return self.loop.run()
        finally:
            self.writer.close()

    def said(self, kind: type[Any]) -> list[Any]:
        """The reports of one kind, in order."""
        return [report for report in self.reports if isinstance(report, kind)]

    @property
    def losses(self) -> str:
        """The whole of losses.jsonl."""
        return (self.directory / "losses.jsonl").read_text()


class Patient(Run):
    """A run whose every save is down before the next window, however slow the disk: none is merged with a later one."""

    def _declare(self, phase: Phase) -> None:
        super()._declare(phase)
        self.writer.wait()


def act_at(window: int, action: m.Action, seq: int = 1) -> m.AppliedAction:
    """An action of a journal."""
    return m.AppliedAction(
        seq=seq, window=window, revision=seq + 1, action=action, request_id=f"request-{seq}"
    )
