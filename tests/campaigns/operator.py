"""Somebody who changes a job all the while, from a thread of their own: what the kills strike in the middle of.

A command may find no daemon, lose it, or be refused; an answer that was lost is asked for again under the same id by the
next command's turn. What was answered must be in the history in the end, as it was told.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

from ampd.control.client import Client, new_request_id
from ampd.core import protocol as p
from ampd.errors import CommandError

_BETWEEN_SECONDS = 0.3
_LOST = {"NOT_RUNNING", "TIMED_OUT", "UNREACHABLE"}
_NEVER = {"INTERNAL", "BAD_FRAME", "BAD_JSON", "BAD_REPLY"}


class Operator:
    """One client; `work` until `leave` is set."""

    def __init__(self, home: Path, draw: random.Random) -> None:
        self.leave = threading.Event()
        self.asked: Counter[str] = Counter()
        self.told: dict[str, p.Done] = {}
        self._client = Client(f"ipc://{home / 'rt' / 'toy' / 'control.sock'}")
        self._draw = draw

    def work(self) -> None:
        """Ask, again and again; raises AssertionError for an answer that is never right."""
        lost: tuple[str, p.AnyCommand] | None = None
        while not self.leave.wait(self._draw.expovariate(1 / _BETWEEN_SECONDS)):
            request_id, command = lost or (new_request_id(), self._command())
            is_answered = self._ask(command, request_id)
            lost = None if is_answered else (request_id, command)

    def check(self, history: p.Done) -> None:
        """Every change that was answered is in the history, once and as it was told."""
        revisions = history.result["revisions"]
        by_number = {revision["revision"]: revision for revision in revisions}
        assert list(by_number) == list(range(2, len(revisions) + 2)), "a revision is missing or doubled"
        for done in self.told.values():
            if done.result.get("changes"):  # what moved nothing made no revision
                assert by_number[done.revision]["changes"] == done.result["changes"], done

    def _ask(self, command: p.AnyCommand, request_id: str) -> bool:
        """Whether there was an answer, a refusal included."""
        self.asked[type(command).__name__] += 1
        try:
            done = self._client.ask(command, self._draw.choice((0.05, 0.5, 5.0)), request_id=request_id)
        except CommandError as error:
            assert error.code not in _NEVER, error
            return error.code not in _LOST
        self.told[request_id] = done
        return True

    def _command(self) -> p.AnyCommand:
        """Mostly of a kind that makes a revision."""
        draw = self._draw
        changes: tuple[dict[str, str], ...] = (
            {"dtype": draw.choice(("float32", "bfloat16", "float16"))},
            {"optim.lr": str(draw.uniform(1e-4, 1e-2))},
            {"clip.max_norm": str(draw.uniform(0.1, 2.0)), "optim.weight_decay": str(draw.uniform(0.0, 0.1))},
            {"checkpoint.every_windows": str(draw.randint(5, 40))},
        )
        commands: tuple[p.AnyCommand, ...] = (
            *(p.Set(changes=change) for change in changes), p.Preset(name=draw.choice(("basic", "advanced", "ultra"))),
            p.Rollback(), p.Reset(what=draw.choice(("stats", "scaler", "fallback-budget"))),
            p.Inject(fault=draw.choice(("overflow", "nan-grad", "nan-loss")), windows=draw.randint(1, 3)), p.Checkpoint(),
        )  # fmt: skip
        return draw.choice(commands)
