"""`ampctl events`: what happened, as kept by the daemon, and what happens from now on.

With `--follow`, what is no event (some are lost, the daemon was started again, nothing is heard) is said on stderr
for people; with `--json` each is a line among the others, without a number, so that a program need not read two streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ampd.cli.command_line import say
from ampd.cli.ctl_call import Call, answer, pass_call
from ampd.errors import ExitCode

if TYPE_CHECKING:
    from ampd.control.follow import Follower, Told
    from ampd.core.protocol import Done


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("--since", type=click.IntRange(min=0), metavar="N", help="Only what came after event N.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object; with --follow, one on each line."
)
@pass_call
def events(call: Call, follow: bool, since: int | None, as_json: bool) -> None:
    """Show what happened: fallbacks, changes, checkpoints, restarts.

    Events are numbered from 1 with every start of the daemon, which keeps the last 10,000. A follower that missed
    some asks for them by itself; what is gone is said, and so is a daemon that was started again.

    \b
    Examples:
      ampctl events
      ampctl events --follow
      ampctl events --follow --since 120 --json | jq -r .name
    """
    from ampd.cli import past_pages

    if not follow:
        answer(_kept(call, since), past_pages.events, as_json=as_json)
        return
    from ampd.control.follow import Follower

    try:
        _follow(Follower(*call.endpoint(), since=since), as_json=as_json)
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None


def _kept(call: Call, since: int | None) -> Done:
    """All events after a number, asked for in as many pieces as it takes."""
    from ampd.core.protocol import Events

    done = call.ask(Events(since=since), seconds=10)
    found = done.result["events"]
    while found and found[-1]["seq"] < done.result["last"]:
        more = call.ask(Events(since=found[-1]["seq"], boot=done.boot), seconds=10).result["events"]
        found += more
    return done


def _follow(follower: Follower, *, as_json: bool) -> None:
    from ampd.core.protocol import Event

    for told in follower.follow():
        if as_json:
            _print_json(told)
        elif isinstance(told, Event):
            _print_event(told)
        else:
            click.echo(f"ampctl: {_said(told)}", err=True)


def _print_event(event: Any) -> None:
    import msgspec

    from ampd.cli import past_pages

    say(past_pages.event(msgspec.to_builtins(event)))


def _print_json(told: Told) -> None:
    import msgspec

    from ampd.core.protocol import Event

    row: dict[str, Any] = msgspec.to_builtins(told) if isinstance(told, Event) else _row(told)
    say(msgspec.json.encode(row).decode())


def _row(told: Told) -> dict[str, Any]:
    """What is no event, in an event's shape: `seq` and `time` are null."""
    from ampd.control.follow import Lost, NewBoot

    empty: dict[str, Any] = {"boot": getattr(told, "boot", None), "seq": None, "time": None}
    match told:
        case Lost(first=first, last=last):
            return empty | {"name": "events.lost", "fields": {"first": first, "last": last}}
        case NewBoot(before=before, last=last):
            return empty | {"name": "daemon.changed", "fields": {"before": before, "last": last}}
        case _:
            return empty | {"name": "daemon.silent", "fields": {"reason": _said(told)}}


def _said(told: Told) -> str:
    from ampd.control.endpoints import Presence
    from ampd.control.follow import SILENCE_SECONDS, Lost, NewBoot, Silent

    match told:
        case Lost(first=first, last=last):
            return f"events {first} to {last} are lost: the daemon no longer keeps them"
        case NewBoot(boot=boot, before=before, last=last):
            return f"the daemon was started again: boot {boot} after boot {before}, whose last event here was {last}"
        case Silent(presence=Presence.LISTENING):
            return f"nothing was heard for {SILENCE_SECONDS:g} s: the daemon is stopped or hung; waiting"
        case _:
            return "the daemon has ended; waiting for the next (Ctrl-C to leave)"
