"""Guards of a trial: what must hold for a change to be kept, `FIGURE OPERATOR LIMIT`, as an operator types it.

    fallback_rate<0.02    nonfinite==0    loss<1.2x    step_time<1.3x    scale>=16

A limit with an `x` is a multiple of what the figure was before the change. A guard is judged by the least and the most
that its figure can still become (`can_hold`), so that a rate trips in the window that decides it and not in the first
that falls back: one fallback in two hundred windows is half a percent, also while only three of them have been run.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec

from ampd.core.keys import did_you_mean
from ampd.core.term import Term
from ampd.errors import ConfigError

Operator = Literal["<", "<=", "==", ">=", ">"]
_FORM = re.compile(r"\s*(\w+)\s*(<=|>=|==|<|>)\s*([-+.\w]+?)(x?)\s*")
_EXAMPLES = "for example fallback_rate<0.02, nonfinite==0 or step_time<1.3x"


class Figure(Term):
    """What a guard looks at. `doc` says what it is; it is the same in `ampctl set --help`."""

    FALLBACK_RATE = "fallback_rate", "share of the trial's windows that fell back to float32"
    SKIP_RATE = "skip_rate", "share of the trial's windows that were never applied"
    NONFINITE = "nonfinite", "windows that were not finite even in float32, so never applied"
    LOSS = "loss", "mean loss; with x, times the mean before"
    GRAD_NORM = "grad_norm", "mean gradient norm; with x, times the mean before"
    STEP_TIME = "step_time", "median seconds that a window trains; with x, times the median before"
    SCALE = "scale", "the loss scale, after every window; holds where there is none"

    @property
    def is_share(self) -> bool:
        """It is a part of the trial's windows, 0 to 1."""
        return self in (Figure.FALLBACK_RATE, Figure.SKIP_RATE)

    @property
    def is_counted(self) -> bool:
        """It is known exactly, window by window."""
        return self.is_share or self is Figure.NONFINITE

    @property
    def is_measured(self) -> bool:
        """It is a mean or a median, which says little after a few windows, and can be compared with before."""
        return self in (Figure.LOSS, Figure.GRAD_NORM, Figure.STEP_TIME)


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """One condition. `is_relative`: `limit` is a multiple of the figure before the change."""

    figure: Figure
    operator: Operator
    limit: float
    is_relative: bool = False

    def __str__(self) -> str:
        return f"{self.figure}{self.operator}{self.limit:.12g}{'x' * self.is_relative}"

    def can_hold(self, least: float, most: float) -> bool:
        """Whether some value between `least` and `most` satisfies it."""
        match self.operator:
            case "<":
                return least < self.limit
            case "<=":
                return least <= self.limit
            case "==":
                return least <= self.limit <= most
            case ">=":
                return most >= self.limit
            case ">":
                return most > self.limit


def parse(text: str) -> Guard:
    """The guard that an operator typed; raises ConfigError with what is wrong about it."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise _wrong(text, "expected FIGURE OPERATOR LIMIT, with one of < <= == >= >", _EXAMPLES)
    name, operator, number, x = form.groups()
    figures = {figure.value: figure for figure in Figure}
    if name not in figures:
        raise _wrong(
            text, f"{name!r} is no figure{did_you_mean(name, figures)}", f"figures: {', '.join(figures)}"
        )
    guard = Guard(
        figure=figures[name], operator=msgspec.convert(operator, Operator), limit=_limit(text, number), is_relative=bool(x)
    )  # fmt: skip
    _check(text, guard)
    return guard


def _limit(text: str, number: str) -> float:
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise _wrong(text, f"{number!r} is no finite number", _EXAMPLES)
    return limit


def _check(text: str, guard: Guard) -> None:
    figure, limit = guard.figure, guard.limit
    if guard.is_relative and not figure.is_measured:
        raise _wrong(
            text,
            f"{figure} is not compared with before",
            "leave out the x, which is for loss, grad_norm and step_time",
        )
    if guard.operator == "==" and figure.is_measured:
        raise _wrong(text, f"{figure} is measured, and never equals a number", "use <, <=, >= or >")
    if figure.is_share and not 0 <= limit <= 1:
        raise _wrong(text, f"{figure} is a share, from 0 to 1", _EXAMPLES)
    if (limit < 0 or (limit == 0 and guard.operator == "<")) and (
        guard.is_relative or figure is not Figure.LOSS
    ):
        raise _wrong(text, f"{figure} is never below 0, so this says nothing or never holds", _EXAMPLES)
    if figure.is_share and limit == 1 and guard.operator == ">":
        raise _wrong(text, f"{figure} is never above 1", _EXAMPLES)


def _wrong(text: str, why: str, hint: str) -> ConfigError:
    return ConfigError(f"guard {text!r}: {why}", field="guards", hint=hint)


DEFAULT = tuple(map(parse, ("nonfinite==0", "fallback_rate<0.05", "loss<1.5x", "step_time<1.5x")))
"""Where none is given: nothing lost, few fallbacks, and neither the loss nor the time half as much again."""
