"""What the shell's TAB offers: keys, the values of a key that has a few, presets, words that have a meaning.

Read off the same table as validation, so that what is offered is accepted. No daemon is asked: completion must be
instant, and must work before there is one.

bash takes `=` for the end of a word, zsh and fish do not. So `set` sees `dtype=fl` whole, or as `dtype`, `=` and
`fl` one after the other, and offers the whole word or the value alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ampd.core.keys import Key


def keys(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Any key."""
    return [_item(name, key) for name, key in _names(live_only=False).items() if name.startswith(incomplete)]


def assignments(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A live key with its `=`, then the values that it takes."""
    live = _names(live_only=True)
    name, equals, begun = incomplete.partition("=")
    if equals and name:
        return [_value(f"{name}={value}") for value in _values(live.get(name)) if value.startswith(begun)]
    split = _split_key(context.params.get(parameter.name or ""))
    if split is not None:
        return [_value(value) for value in _values(live.get(split)) if value.startswith(begun or name)]
    return [_item(f"{name}=", key) for name, key in live.items() if name.startswith(incomplete)]


def meanings(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A word that `explain` knows."""
    from ampd.cli.ctl_explain import words

    return [_value(word) for word in words() if word.startswith(incomplete)]


def presets(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A preset, with what it changes."""
    from click.shell_completion import CompletionItem

    from ampd.core.change import PRESETS, show

    about = {
        name: ", ".join(f"{key}={show(value)}" for key, value in made.items())
        for name, made in PRESETS.items()
    }
    return [CompletionItem(name, help=text) for name, text in about.items() if name.startswith(incomplete)]


def _names(*, live_only: bool) -> dict[str, Key]:
    """Keys by every name that `ampctl` takes for them: the full one, and the last part where it is unique."""
    from ampd.core.keys import table

    full = {path: key for path, key in table().items() if key.live or not live_only}
    lasts = [path.rpartition(".")[2] for path in table()]
    short = {path.rpartition(".")[2]: key for path, key in full.items()}
    return full | {name: key for name, key in short.items() if lasts.count(name) == 1}


def _split_key(words: tuple[str, ...] | None) -> str | None:
    """The key whose value comes next, where the shell has split `KEY=VALUE`; else None."""
    last = list(words or ())[-2:]
    if last and last[-1] == "=":
        return last[0]
    return last[-1] if last and "=" not in last[-1] else None


def _values(key: Key | None) -> list[str]:
    """The words that a key takes, where they are few."""
    from ampd.core.mistakes import choices

    if key is None:
        return []
    return choices(key.type) or (["true", "false"] if "bool" in str(key.type) else [])


def _item(text: str, key: Key) -> CompletionItem:
    from click.shell_completion import CompletionItem

    return CompletionItem(text, help=key.doc)


def _value(text: str) -> CompletionItem:
    from click.shell_completion import CompletionItem

    return CompletionItem(text)
