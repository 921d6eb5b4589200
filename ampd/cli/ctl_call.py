"""From a command line to a daemon and back: find it, ask it, print the answer."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ampd.cli.command_line import say
from ampd.errors import CommandError, ConfigError, ExitCode

if TYPE_CHECKING:
    from ampd.control.keyring import Credentials
    from ampd.core.protocol import AnyCommand, Done


class Call:
    """Which daemon is meant, and how long to wait for it."""

    def __init__(
        self, job: str | None, endpoint: str | None, timeout: float | None, request_id: str, keys: Keys
    ) -> None:
        self._job = job
        self._endpoint = endpoint or (None if job else os.environ.get("AMPD_ENDPOINT"))
        self._timeout = timeout
        self._request_id = request_id
        self._keys = keys

    def ask(self, command: AnyCommand, *, seconds: float) -> Done:
        """The daemon's answer; `seconds` is the wait where the operator named none. Raises CommandError, ConfigError."""
        from ampd.control.client import Client

        _require_text(command)
        client = Client(*self.endpoint())
        return client.ask(command, self._timeout or seconds, request_id=self._request_id)

    def endpoint(self) -> tuple[str, Credentials | None]:
        """The address of the daemon that is meant, and over TCP the keys. Raises CommandError, ConfigError."""
        from ampd.control import endpoints

        if self._endpoint is not None and self._endpoint.startswith("tcp://"):
            return self._endpoint, self._keys.credentials()
        self._keys.refuse()
        return endpoints.find(self._job, self._endpoint).address, None

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask on a terminal; raises CommandError at a no. A script is taken at its word."""
        if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
            raise CommandError(
                "nothing was done", code="DECLINED", exit_code=ExitCode.FAILED, hint="answer y, or give --yes"
            )


def _require_text(command: AnyCommand) -> None:
    """Raise ConfigError where a word of the command line is bytes that are no text, which no message can hold."""
    import msgspec

    try:
        msgspec.json.encode(command)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{error.object!r} is not text in UTF-8", hint="type it again") from None


class Keys:
    """The keys for TCP: given as options, else by AMPD_SERVER_KEY and AMPD_KEY, else those that lie with our keys."""

    def __init__(self, server: str | None, own: str | None) -> None:
        self._server = server
        self._own = own

    def refuse(self) -> None:
        """A unix socket takes no keys; raises ConfigError where one was given on the command line."""
        if self._server or self._own:
            raise ConfigError(
                "--server-key and --key are for --endpoint tcp://HOST:PORT; a unix socket takes none"
            )

    def credentials(self) -> Credentials:
        """Both, read and checked; raises ConfigError where one is missing or not to be trusted."""
        from ampd.control import keyring

        server = self._server or os.environ.get("AMPD_SERVER_KEY") or str(self._beside("server.pub"))
        own = self._own or os.environ.get("AMPD_KEY")
        return keyring.Credentials(keyring.public(server), keyring.read(Path(own) if own else self._only()))

    def _beside(self, name: str) -> Path:
        from ampd.control import keyring

        path = keyring.directory() / name
        if not path.exists():
            raise ConfigError(
                f"TCP needs the daemon's public key, and there is no {path}",
                hint="its operator shows it with `ampctl keys list`; give it as --server-key, or put it into that file",
            )
        return path

    def _only(self) -> Path:
        from ampd.control import keyring

        where = keyring.directory()
        found = keyring.clients(where)
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise ConfigError(
                f"TCP needs a key of your own; in {where}: {names}",
                hint="pick one with --key FILE" if found else "make one with `ampctl keys new NAME`",
            )
        return found[0]


pass_call = click.make_pass_decorator(Call)


def request_id_of(_context: click.Context, _option: click.Parameter, given: str) -> str:
    """The id of `--request-id`, where one was given; raises BadParameter for what is none."""
    if given and not re.fullmatch("[A-Za-z0-9_-]{8,64}", given):
        raise click.BadParameter(
            f"{given!r} is no id: expected the one that the hint of the timed out command shows"
        )
    return given


def answer(done: Done, page: Callable[[Done], str], *, as_json: bool) -> None:
    """Print the answer, as JSON or as the page for people."""
    if as_json:
        import msgspec

        fields = {"id": done.id, "revision": done.revision, "window": done.window, "result": done.result}
        say(msgspec.json.format(msgspec.json.encode(fields), indent=2).decode())
    else:
        say(page(done))
