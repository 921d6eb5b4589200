"""`ampctl`: ask a running daemon, or tell it what to do.

Every command is one request with one final answer, printed for people or, with `--json`, for programs. What the
answer looks like is in `ctl_pages`; finding the daemon is in `ctl_call`, and turning trouble into one message and an
exit code in `command_line`. Nothing but click is imported to print `--help`: everything else is imported by the command that needs
it, so that a shell loop over `ampctl status` stays cheap.
"""

from __future__ import annotations

import click

from ampd.cli import (
    ctl_complete,
    ctl_events,
    ctl_explain,
    ctl_hello,
    ctl_keys,
    ctl_revisions,
    ctl_run,
    ctl_trial,
)
from ampd.cli.command_line import Commands, assignments
from ampd.cli.ctl_call import Call, Keys, answer, pass_call, request_id_of
from ampd.cli.ctl_options import as_json_option, dry_run_option, if_revision_option, reason_option, yes_option
from ampd.cli.ctl_trial import GUARDS, ask_for_change, trial_options


@click.group(
    cls=Commands, program="ampctl", interrupted="interrupted; a request that was sent may still take effect",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
@click.version_option(package_name="ampd")
@click.option("--job", metavar="NAME", help="The job, where several daemons run.")
@click.option(
    "--endpoint", metavar="E", help="Its control socket: a path, ipc://PATH, or tcp://HOST:PORT with keys."
)
@click.option("--server-key", metavar="K", help="For tcp: the daemon's public key, or a file with it.")
@click.option("--key", metavar="FILE", help="For tcp: the file of your own secret key.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), metavar="S", help="Seconds to wait for the answer."
)
@click.option(
    "--request-id",
    metavar="ID",
    default="",
    callback=request_id_of,
    help="Ask again what became of a request that timed out.",
)
@click.pass_context
def cli(
    context: click.Context,
    job: str | None,
    endpoint: str | None,
    server_key: str | None,
    key: str | None,
    timeout: float | None,
    request_id: str,
) -> None:
    """See and change a running training job.

    A single running daemon is found by itself. A change is answered after it took effect. AMPD_ENDPOINT,
    AMPD_SERVER_KEY and AMPD_KEY stand for the options of those names.

    \b
    Examples:
      ampctl status
      ampctl set dtype=bfloat16 -m "fp16 keeps overflowing"
      ampctl --job bytegpt stats --json
      ampctl --endpoint tcp://gpu7:5555 --server-key server.pub --key alice.key status

    \b
    Completion, also of keys and values (zsh_source and fish_source for those shells):
      eval "$(_AMPCTL_COMPLETE=bash_source ampctl)"

    \b
    Exit codes:
      0 ok                       5 refused by the daemon
      1 failed                   6 conflict: the revision has moved on
      2 usage                    7 timed out: the outcome is unknown
      3 no daemon is running     8 rolled back
      4 unreachable or not permitted
      130 interrupted
    """
    context.obj = Call(job, endpoint, timeout, request_id, Keys(server_key, key))


@cli.command()
@as_json_option
@click.option("-w", "--watch", is_flag=True, help="Follow the job on this terminal.")
@click.option("--once", is_flag=True, help="With --watch: print one frame and end.")
@pass_call
def status(call: Call, as_json: bool, watch: bool, once: bool) -> None:
    """Show where the job is and what precision is doing.

    With --watch it follows the job with curves and events, until Ctrl-C.

    \b
    Examples:
      ampctl status
      ampctl status --watch
      ampctl status --json | jq .result.precision
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Status

    if once and not watch:
        raise click.UsageError("--once is for --watch")
    if watch and as_json:
        raise click.UsageError("--watch is for people; a program asks `ampctl status --json` again")
    if watch:
        from ampd.cli.ctl_watch import watch as follow

        follow(call, once=once)
    else:
        answer(call.ask(Status(), seconds=10), ctl_pages.status, as_json=as_json)


@cli.command()
@click.argument("keys", nargs=-1, metavar="[KEY]...", shell_complete=ctl_complete.keys)
@as_json_option
@pass_call
def get(call: Call, keys: tuple[str, ...], as_json: bool) -> None:
    """Show the values of some keys, or of all.

    A key may be given short where that is unique: dtype for amp.dtype.

    \b
    Examples:
      ampctl get
      ampctl get dtype optim.lr
      ampctl get dtype --json | jq -r '.result.values["amp.dtype"]'
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Get

    answer(call.ask(Get(keys=keys), seconds=10), ctl_pages.values, as_json=as_json)


@cli.command("set", epilog=GUARDS)
@click.argument(
    "changes", nargs=-1, required=True, metavar="KEY=VALUE...", shell_complete=ctl_complete.assignments
)
@trial_options
@if_revision_option
@dry_run_option
@reason_option
@as_json_option
@pass_call
def set_(
    call: Call, changes: tuple[str, ...], if_revision: int | None, dry_run: bool, reason: str, as_json: bool,
    trial: int | None, guards: tuple[str, ...], wait: bool,
) -> None:  # fmt: skip
    """Change live keys, all or none.

    They change at one window boundary, and the answer comes after that. With --trial the change is watched, and
    reverts itself where a guard does not hold; the answer comes at the end, with exit code 8 if it was reverted.

    \b
    Examples:
      ampctl set dtype=bfloat16
      ampctl set optim.lr=3e-4 clip.max_norm=1.0 -m "loss is flat"
      ampctl set dtype=float16 --dry-run
      ampctl set dtype=float16 --if-revision 2
      ampctl set dtype=float16 --trial 200 --guard "fallback_rate<0.02" --guard "step_time<1.3x"
    """
    from ampd.core.protocol import Set

    command = Set(
        changes=assignments(changes), if_revision=if_revision, dry_run=dry_run, reason=reason,
        trial=trial, guards=guards, wait=wait,
    )  # fmt: skip
    ask_for_change(call, command, trial, as_json=as_json)


@cli.command(epilog=GUARDS)
@click.argument("name", metavar="NAME", shell_complete=ctl_complete.presets)
@trial_options
@if_revision_option
@dry_run_option
@reason_option
@as_json_option
@pass_call
def preset(
    call: Call, name: str, if_revision: int | None, dry_run: bool, reason: str, as_json: bool,
    trial: int | None, guards: tuple[str, ...], wait: bool,
) -> None:  # fmt: skip
    """Make the changes of a preset: basic, advanced or ultra.

    With --trial they are watched as those of `ampctl set` are.

    \b
    Examples:
      ampctl preset ultra
      ampctl preset advanced --dry-run
    """
    from ampd.core.protocol import Preset

    command = Preset(
        name=name, if_revision=if_revision, dry_run=dry_run, reason=reason, trial=trial, guards=guards, wait=wait
    )  # fmt: skip
    ask_for_change(call, command, trial, as_json=as_json)


@cli.command()
@as_json_option
@pass_call
def stats(call: Call, as_json: bool) -> None:
    """Show the AMP ledger: of the job, and since the last reset.

    \b
    Examples:
      ampctl stats
      ampctl stats --json | jq .result.span.fallback_ratio
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Stats

    answer(call.ask(Stats(), seconds=10), ctl_pages.stats, as_json=as_json)


@cli.command()
@click.argument("what", type=click.Choice(["stats", "scaler", "fallback-budget"]), default="stats")
@yes_option
@as_json_option
@pass_call
def reset(call: Call, what: str, yes: bool, as_json: bool) -> None:
    """Clear statistics, loss scale or fallback budget.

    stats begins a new span, scaler returns to the initial loss scale, and fallback-budget forgets the
    fallbacks counted against the limit of this epoch. Prometheus counters are not touched: they never run backwards.

    \b
    Examples:
      ampctl reset
      ampctl reset scaler
      ampctl reset fallback-budget --yes
    """
    from ampd.cli import ctl_pages
    from ampd.core.protocol import Reset

    call.confirm(f"Reset {what} of this job?", yes=yes)
    answer(call.ask(Reset(what=what), seconds=60), ctl_pages.reset, as_json=as_json)  # type: ignore[arg-type]  # a Choice


for _command in (
    ctl_run.checkpoint,
    ctl_run.pause,
    ctl_run.resume,
    ctl_run.stop,
    ctl_run.inject,
    ctl_revisions.history,
    ctl_revisions.diff,
    ctl_revisions.rollback,
    ctl_revisions.overlay,
    ctl_trial.confirm,
    ctl_trial.cancel,
    ctl_events.events,
    ctl_hello.hello,
    ctl_hello.list_,
    ctl_explain.explain,
    ctl_keys.keys,
):
    cli.add_command(_command)


def main() -> None:
    """The console script."""
    cli()


if __name__ == "__main__":
    main()
