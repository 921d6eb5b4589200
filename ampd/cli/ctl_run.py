"""The commands of `ampctl` that act on the run itself: save, hold, go on, end, and make it go wrong on purpose."""

from __future__ import annotations

from typing import get_args

import click

from ampd.cli.ctl_call import Call, answer, pass_call
from ampd.cli.ctl_options import as_json_option, yes_option
from ampd.core.faults import Fault


@click.command()
@as_json_option
@pass_call
def checkpoint(call: Call, as_json: bool) -> None:
    """Save a checkpoint now.

    At the next window boundary; answered when it is on disk and verified.

    \b
    Examples:
      ampctl checkpoint
      ampctl checkpoint --json | jq -r .result.path
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Checkpoint

    answer(call.ask(Checkpoint(), seconds=180), ctl_pages.checkpoint, as_json=as_json)


@click.command()
@as_json_option
@pass_call
def pause(call: Call, as_json: bool) -> None:
    """Hold the job at the next window boundary.

    \b
    Example:
      ampctl pause
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Pause

    answer(call.ask(Pause(), seconds=60), ctl_pages.moved, as_json=as_json)


@click.command()
@as_json_option
@pass_call
def resume(call: Call, as_json: bool) -> None:
    """Go on after a pause.

    \b
    Example:
      ampctl resume
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Resume

    answer(call.ask(Resume(), seconds=60), ctl_pages.moved, as_json=as_json)


@click.command()
@click.option("--no-save", is_flag=True, help="End without a last checkpoint.")
@yes_option
@as_json_option
@pass_call
def stop(call: Call, no_save: bool, yes: bool, as_json: bool) -> None:
    """Save, then end the job and its daemon.

    \b
    Examples:
      ampctl stop
      ampctl stop --yes --no-save
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Stop

    call.confirm("End this job without saving it?" if no_save else "Save and end this job?", yes=yes)
    answer(call.ask(Stop(save=not no_save), seconds=180), ctl_pages.stopped, as_json=as_json)


@click.command()
@click.argument("fault", type=click.Choice(get_args(Fault)))
@click.option(
    "--windows", type=click.IntRange(1, 100000), default=1, show_default=True, help="How many windows."
)
@click.option("--rank", type=click.IntRange(min=0), help="On this rank alone; on all without.")
@as_json_option
@pass_call
def inject(call: Call, fault: Fault, windows: int, rank: int | None, as_json: bool) -> None:
    """Make the next windows go wrong.

    To rehearse alerts and fallbacks; the job file must allow it.

    \b
    Examples:
      ampctl inject overflow
      ampctl inject nan-grad --windows 20
      ampctl inject oom --rank 1
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Inject

    answer(
        call.ask(Inject(fault=fault, windows=windows, rank=rank), seconds=60),
        ctl_pages.injected,
        as_json=as_json,
    )
