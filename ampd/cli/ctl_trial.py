"""The commands of `ampctl` about a change on trial: its options, its early end, and how it came out.

A trial that was reverted ends with exit code 8, after the same answer on stdout as any: the change was made and undone,
so it is neither done nor refused, and a script can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ampd.cli.ctl_call import Call, answer, pass_call
from ampd.cli.ctl_options import as_json_option, reason_option, yes_option
from ampd.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from ampd.core.protocol import AnyCommand

WAIT_SECONDS = 14 * 86400.0
"""For the end of a trial: it takes as long as its windows do. A daemon that ends meanwhile is noticed at once."""

GUARDS = """\b
A guard is FIGURE OPERATOR LIMIT, with < <= == >= or >. An x after the limit makes it a multiple of what the
figure was in the (at most 64) windows since the last change. Figures:
  fallback_rate  share of the trial's windows that fell back to float32
  skip_rate      share of the trial's windows that were never applied
  nonfinite      windows that were not finite even in float32
  loss           mean loss (x: times the mean before)
  grad_norm      mean gradient norm (x: times the mean before)
  step_time      median seconds that a window trains (x: times the median before)
  scale          the loss scale, after every window
Without --guard: nonfinite==0, fallback_rate<0.05, loss<1.5x, step_time<1.5x."""


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a change that may be put on trial."""
    for option in (
        click.option(
            "--no-wait", "wait", flag_value=False, default=True, help="Answer when the change is applied, not at the end."
        ),
        click.option("--guard", "guards", multiple=True, metavar="GUARD", help="What must hold; may be given often."),
        click.option(
            "--trial", type=click.IntRange(1, 100_000), metavar="WINDOWS",
            help="Watch the change for so many windows; revert it if a guard does not hold.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def ask_for_change(call: Call, command: AnyCommand, trial: int | None, *, as_json: bool) -> None:
    """Ask, print the answer, and raise CommandError where the trial was reverted."""
    from ampd.cli import ctl_pages

    done = call.ask(command, seconds=60 if trial is None else WAIT_SECONDS)
    answer(done, ctl_pages.changes, as_json=as_json)
    result = done.result.get("trial") or {}
    if result.get("outcome") == "reverted":
        raise CommandError(
            f"the trial was reverted at window {done.window}: {result['reason']}", code="ROLLED_BACK",
            exit_code=ExitCode.ROLLED_BACK, hint=f"what was before holds again, as revision {done.revision}",
        )  # fmt: skip


@click.command()
@reason_option
@as_json_option
@pass_call
def confirm(call: Call, reason: str, as_json: bool) -> None:
    """Keep the change that is on trial, without waiting for its end.

    \b
    Examples:
      ampctl confirm
      ampctl confirm -m "the curve is fine"
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Confirm

    answer(call.ask(Confirm(reason=reason), seconds=60), ctl_pages.confirmed, as_json=as_json)


@click.command()
@reason_option
@yes_option
@as_json_option
@pass_call
def cancel(call: Call, reason: str, yes: bool, as_json: bool) -> None:
    """Revert the change that is on trial, without waiting for its end.

    That makes a new revision; whoever waits for the trial is told that it was reverted.

    \b
    Examples:
      ampctl cancel
      ampctl cancel --yes -m "wrong learning rate"
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Cancel

    call.confirm("Revert the change that is on trial?", yes=yes)
    answer(call.ask(Cancel(reason=reason), seconds=60), ctl_pages.changes, as_json=as_json)
