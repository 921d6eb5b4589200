"""The commands of `ampctl` about revisions: what was changed by whom, and the way back.

Going back never erases anything: it is one more revision, made by the same path as any other change.
"""

from __future__ import annotations

import click

from ampd.cli.ctl_call import Call, answer, pass_call
from ampd.cli.ctl_options import (
    as_json_option,
    dry_run_option,
    if_revision_option,
    reason_option,
    yes_option,
)


@click.command()
@click.option("-n", "last", type=click.IntRange(min=1), metavar="N", help="The newest N only.")
@as_json_option
@pass_call
def history(call: Call, last: int | None, as_json: bool) -> None:
    """Show every change: who, when, why, and at which window.

    The oldest comes first. Changes of earlier runs of the daemon are in it: it is read from the job's journal.

    \b
    Examples:
      ampctl history
      ampctl history -n 5
      ampctl history --json | jq -r '.result.revisions[].author'
    """
    from ampd.cli import past_pages
    from ampd.core.protocol import History

    answer(call.ask(History(last=last), seconds=10), past_pages.history, as_json=as_json)


@click.command()
@click.argument("old", type=click.IntRange(min=1), default=1, metavar="[A]")
@click.argument("new", type=click.IntRange(min=1), required=False, metavar="[B]")
@as_json_option
@pass_call
def diff(call: Call, old: int, new: int | None, as_json: bool) -> None:
    """Show the keys in which two revisions differ.

    A is the job file and B is what holds now, where they are not given.

    \b
    Examples:
      ampctl diff
      ampctl diff 3
      ampctl diff 3 5
    """
    from ampd.cli import past_pages
    from ampd.core.protocol import Diff

    answer(call.ask(Diff(old=old, new=new), seconds=10), past_pages.diff, as_json=as_json)


@click.command()
@click.argument("revision", type=click.IntRange(min=1), required=False, metavar="[N]")
@if_revision_option
@dry_run_option
@reason_option
@yes_option
@as_json_option
@pass_call
def rollback(
    call: Call,
    revision: int | None,
    if_revision: int | None,
    dry_run: bool,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Go back to the live keys of revision N, or of the one before.

    That makes a new revision; weights and the data order stay where they are.

    \b
    Examples:
      ampctl rollback
      ampctl rollback 3 -m "the loss went up"
      ampctl rollback 1 --dry-run
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Rollback

    if not dry_run:
        call.confirm(f"Go back to {f'revision {revision}' if revision else 'the revision before'}?", yes=yes)
    command = Rollback(revision=revision, if_revision=if_revision, dry_run=dry_run, reason=reason)
    answer(call.ask(command, seconds=60), ctl_pages.changes, as_json=as_json)


@click.group()
def overlay() -> None:
    """Show or drop the live changes that lie over the job file.

    They survive a restart, and the job file is never rewritten.

    \b
    Examples:
      ampctl overlay show
      ampctl overlay drop --dry-run
    """


@overlay.command("show")
@as_json_option
@pass_call
def overlay_show(call: Call, as_json: bool) -> None:
    """Show which live keys differ from the job file, and since which revision.

    The job file as it was when the daemon was started.

    \b
    Examples:
      ampctl overlay show
      ampctl overlay show --json | jq -r '.result.changes[].key'
    """
    from ampd.cli import past_pages
    from ampd.core.protocol import Overlay

    answer(call.ask(Overlay(), seconds=10), past_pages.overlay, as_json=as_json)


@overlay.command("drop")
@if_revision_option
@dry_run_option
@reason_option
@yes_option
@as_json_option
@pass_call
def overlay_drop(
    call: Call, if_revision: int | None, dry_run: bool, reason: str, yes: bool, as_json: bool
) -> None:
    """Go back to the job file; after a restart its keys hold again, as they will be then.

    \b
    Examples:
      ampctl overlay drop
      ampctl overlay drop --dry-run
      ampctl overlay drop --yes -m "now in the job file"
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import DropOverlay

    if not dry_run:
        call.confirm("Drop every live change of this job?", yes=yes)
    command = DropOverlay(if_revision=if_revision, dry_run=dry_run, reason=reason)
    answer(call.ask(command, seconds=60), ctl_pages.changes, as_json=as_json)
