"""What `ampd` and `ampctl` have in common: how a command line ends, how an answer is printed, what KEY=VALUE is.

`Commands` is the click group whose `main` turns every error that we raise on purpose into `ampctl: what happened`, a
hint on the next line, and the exit code of that error. It overrides the one method that the console script and
click's test runner both go through, so that what is tested is what an operator gets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import click

from ampd.errors import AmpdError, CommandError, ConfigError, ExitCode


class Commands(click.Group):
    """A group that ends with ampd's exit codes and one message on stderr; `interrupted` is what Ctrl-C leaves behind."""

    def __init__(self, *args: Any, program: str, interrupted: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._program = program
        self._interrupted = interrupted

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that a word names; raises UsageError with the nearest for one that names none."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from ampd.core.keys import did_you_mean

            nearest = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{args[0]!r} is not a command{nearest}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit; a command may return its exit code."""
        try:
            code = super().main(*args, **(kwargs | {"prog_name": self._program, "standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = ExitCode.USAGE
        except click.ClickException as error:
            code = self.complain(error.format_message(), _usage_hint(error), ExitCode.USAGE)
        except (click.Abort, KeyboardInterrupt):
            code = self.complain(self._interrupted, "", ExitCode.INTERRUPTED)
        except AmpdError as error:
            hint = error.hint if isinstance(error, CommandError | ConfigError) else ""
            code = self.complain(str(error), hint, error.exit_code)
        sys.exit(code or ExitCode.OK)

    def complain(self, message: str, hint: str, code: int) -> int:
        """Say what happened and what to do; returns the exit code."""
        click.echo(f"{self._program}: {message}", err=True)
        if hint:
            click.echo(f"  hint: {hint}", err=True)
        return code


def say(text: str) -> None:
    """Print an answer; raises CommandError where standard output does not take it (a pipe that is closed is click's)."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is in the buffer would be tried again at the end
        raise CommandError(
            f"the answer cannot be written to standard output: {error.strerror}", code="OUTPUT",
            exit_code=ExitCode.FAILED, hint="what was asked for is done",
        ) from None  # fmt: skip


def assignments(words: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE words as a mapping; a key that is given twice is refused, since one of the two would be ignored."""
    found: dict[str, str] = {}
    for word in words:
        _require_text(word)
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{word!r} is not KEY=VALUE; for example dtype=bfloat16")
        if key in found:
            raise click.UsageError(f"{key} is given twice, as {found[key]!r} and {value!r}")
        found[key] = value
    return found


def _require_text(word: str) -> None:
    """Raise UsageError for bytes that are no text, which Python has smuggled through."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise click.UsageError(f"{word!r} is not text in UTF-8") from None


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"see {context.command_path} --help" if context else ""
