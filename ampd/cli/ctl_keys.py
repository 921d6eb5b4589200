"""`ampctl keys`: the key files of this machine, for a client here or a daemon here. No daemon is asked.

Nothing secret is printed: `new` says what to give to the other side, and that is the public half. What is printed can be
pasted as it is; Z85 has characters that a shell would act on, but no single quote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ampd.cli.command_line import say

ROLES = ("view", "operate", "admin")


@click.group()
def keys() -> None:
    """Make and allow keys, for control over TCP.

    Keys lie in $AMPD_KEYS_DIR; else in /etc/ampd/keys (for root, and whoever may look into it); else in
    ~/.config/ampd/keys.

    \b
    Examples:
      ampctl keys new --server                                (where the daemon runs)
      ampctl keys new alice                                   (where alice sits)
      ampctl keys allow alice 'PUBLIC KEY' --role operate     (where the daemon runs)
      ampctl keys list
    """


@keys.command()
@click.argument("name", required=False, metavar="NAME")
@click.option("--server", is_flag=True, help="The key of this machine's daemons.")
def new(name: str | None, server: bool) -> None:
    """Make a key, and print what to give to the other side.

    \b
    Examples:
      ampctl keys new alice
      ampctl keys new --server
    """
    from ampd.control import keyring

    if (name is None) is not server:
        raise click.UsageError("give the NAME of a client's key, or --server, and not both")
    if name == keyring.SERVER:
        raise click.UsageError("server names the daemon's key: ampctl keys new --server")
    where = keyring.directory()
    pair = keyring.make(where, name or keyring.SERVER)
    path = where / f"{name or keyring.SERVER}.key"
    say(f"made {path}, which is secret and stays here, and {path.with_suffix('.pub')}")
    if name is None:
        say(f"clients give the daemon's public key:\n  --server-key '{pair.public}'")
    else:
        say(f"the daemon's operator allows it:\n  ampctl keys allow {name} '{pair.public}' --role operate")


@keys.command()
@click.argument("name", metavar="NAME")
@click.argument("public_key", metavar="PUBLICKEY")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do.")
def allow(name: str, public_key: str, role: str) -> None:
    """Let a key in, under a name that the history shows.

    view looks, operate also changes and saves, admin also rolls back and stops. PUBLICKEY is the key, in single
    quotes, or its .pub file. It holds for the next connection.

    \b
    Examples:
      ampctl keys allow alice alice.pub --role operate
      ampctl keys allow wall 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7' --role view
    """
    from ampd.control import allowed, keyring

    where = keyring.directory()
    allowed.allow(where, name, keyring.public(public_key), role)  # type: ignore[arg-type]  # a Choice
    say(f"{name} may come in as {role}: {where / allowed.FILE}")


@keys.command()
@click.argument("name", metavar="NAME")
def remove(name: str) -> None:
    """Take a name off the list.

    It does not come in again, and no command of it is carried out any more. Who follows events with it hears them until it ends.

    \b
    Example:
      ampctl keys remove alice
    """
    from ampd.control import allowed, keyring

    where = keyring.directory()
    allowed.remove(where, name)
    say(f"{name} does not come in any more: {where / allowed.FILE}")


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(as_json: bool) -> None:
    """Show the keys that lie here, and who may come in. Public halves only.

    \b
    Examples:
      ampctl keys list
      ampctl keys list --json | jq -r .server
    """
    import msgspec

    from ampd.control import allowed, keyring

    where = keyring.directory()
    listed = allowed.load(where / allowed.FILE) if (where / allowed.FILE).exists() else {}
    server = where / f"{keyring.SERVER}.key"
    found: dict[str, Any] = {
        "directory": str(where),
        "server": keyring.read(server).public if server.exists() else None,
        "clients": {path.stem: keyring.read(path).public for path in keyring.clients(where)},
        "allowed": {name: {"key": each.key, "role": each.role} for name, each in listed.items()},
    }
    say(msgspec.json.encode(found).decode() if as_json else _page(where, found))


def _page(where: Path, found: dict[str, Any]) -> str:
    from ampd.cli.ctl_pages import in_columns

    clients, allowed = found["clients"], found["allowed"]
    rows = [("KEY", "MAY", "PUBLIC HALF")]
    rows += [("server (this machine's daemons)", "-", str(found["server"]))] if found["server"] else []
    rows += [(f"{name} (a client's, here)", "-", public) for name, public in clients.items()]
    rows += [(name, each["role"], each["key"]) for name, each in allowed.items()]
    return "\n".join(in_columns(rows)) if len(rows) > 1 else f"there are no keys in {where}"
