"""The options that several commands of `ampctl` share, with one wording each."""

from __future__ import annotations

import click

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON object.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check and show the change, make nothing.")
if_revision_option = click.option(
    "--if-revision", type=click.IntRange(min=1), help="Only if this revision still holds."
)
reason_option = click.option(
    "-m", "--message", "reason", default="", help="Why; goes into the job's history."
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask on a terminal.")
