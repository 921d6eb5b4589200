"""From a command line to a daemon and back: find it, ask it, and end with one message and one exit code.

`Ampctl` is the click group whose `main` turns every error that we raise on purpose into `ampctl: what happened`, a
hint on the next line, and the exit code of that error. It overrides the one method that the console script and
click's test runner both go through, so that what is tested is what an operator gets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ampd.errors import AmpdError, CommandError, ConfigError, ExitCode

if TYPE_CHECKING:
    from ampd.core.protocol import AnyCommand, Done


class Ampctl(click.Group):
    """A group that ends with ampd's exit codes and one message on stderr."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit."""
        try:
            super().main(*args, **(kwargs | {"standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = ExitCode.USAGE
        except click.ClickException as error:
            code = _complain(error.format_message(), _usage_hint(error), ExitCode.USAGE)
        except click.exceptions.Abort:
            code = _complain(
                "interrupted; a request that was sent may still take effect", "", ExitCode.INTERRUPTED
            )
        except AmpdError as error:
            hint = error.hint if isinstance(error, CommandError | ConfigError) else ""
            code = _complain(str(error), hint, error.exit_code)
        else:
            code = ExitCode.OK
        sys.exit(code)


class Call:
    """Which daemon is meant, and how long to wait for it."""

    def __init__(self, job: str | None, endpoint: str | None, timeout: float | None, request_id: str) -> None:
        self._job = job
        self._endpoint = endpoint
        self._timeout = timeout
        self._request_id = request_id

    def ask(self, command: AnyCommand, *, seconds: float) -> Done:
        """The daemon's answer; `seconds` is the wait where the operator named none. Raises CommandError, ConfigError."""
        from ampd.control.client import Client

        return Client(self.endpoint()).ask(command, self._timeout or seconds, request_id=self._request_id)

    def endpoint(self) -> str:
        """The address of the daemon that is meant. Raises CommandError, ConfigError."""
        from ampd.control import endpoints

        return endpoints.find(self._job, self._endpoint).address

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask on a terminal; raises CommandError at a no. A script is taken at its word."""
        if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
            raise CommandError(
                "nothing was done", code="DECLINED", exit_code=ExitCode.FAILED, hint="answer y, or give --yes"
            )


pass_call = click.make_pass_decorator(Call)


def answer(done: Done, page: Callable[[Done], str], *, as_json: bool) -> None:
    """Print the answer, as JSON or as the page for people."""
    if as_json:
        import msgspec

        fields = {"id": done.id, "revision": done.revision, "window": done.window, "result": done.result}
        click.echo(msgspec.json.format(msgspec.json.encode(fields), indent=2).decode())
    else:
        click.echo(page(done))


def _complain(message: str, hint: str, code: ExitCode) -> ExitCode:
    click.echo(f"ampctl: {message}", err=True)
    if hint:
        click.echo(f"  hint: {hint}", err=True)
    return code


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"see {context.command_path} --help" if context else ""
