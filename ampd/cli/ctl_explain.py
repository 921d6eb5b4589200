"""`ampctl explain WORD`: what a metric, an alert, a key of the job file or a cause means, without asking anybody.

Nothing is written down here: metrics come from the table that /metrics is made of, alerts from their runbooks, keys from
the structs that validate them, causes from the enum that counts them. A word that means several things gets an answer
for each. The tables are loaded when an answer is made, because no other command needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ampd.cli import ctl_complete
from ampd.cli.command_line import say
from ampd.cli.ctl_options import as_json_option

if TYPE_CHECKING:
    from ampd.core.keys import Key
    from ampd.core.ledger import Cause

FAILPOINTS = "failpoints"
"""The word that means all of them."""
Answer = dict[str, Any]
"""`kind`, `name`, `text` for people, and the facts of that kind."""


@click.command()
@click.argument("word", metavar="METRIC|ALERT|KEY|CAUSE", shell_complete=ctl_complete.meanings)
@as_json_option
def explain(word: str, as_json: bool) -> None:
    """Say what a word of ampd means.

    A metric, an alert, a key of the job file, a cause of fallbacks or a failpoint (`failpoints` lists them); no
    daemon is needed.

    \b
    Examples:
      ampctl explain AmpdFallbackSpike
      ampctl explain ampd_fp32_fallbacks_total
      ampctl explain dtype
      ampctl explain transient
      ampctl explain failpoints
    """
    answers = list(find(word))
    if not answers:
        raise click.UsageError(f"{word!r} is no metric, alert, key, cause or failpoint{_nearest(word)}")
    if as_json:
        import msgspec

        say(msgspec.json.format(msgspec.json.encode({"word": word, "answers": answers}), indent=2).decode())
    else:
        say("\n\n".join(answer["text"] for answer in answers))


def find(word: str) -> Iterator[Answer]:
    """Every meaning of a word; a metric may be named without its ampd_."""
    yield from _metrics(word)
    yield from _alerts(word)
    yield from _keys(word)
    yield from _causes(word)
    yield from _failpoints(word)


def words() -> list[str]:
    """Every word that has a meaning."""
    from ampd.core import keys
    from ampd.core.ledger import Cause
    from ampd.failpoints import POINTS
    from ampd.telemetry import runbooks
    from ampd.telemetry.metrics import FAMILIES

    return [
        *(family.name for family in FAMILIES),
        *runbooks.names(),
        *keys.table(),
        *(cause.value for cause in Cause),
        FAILPOINTS,
        *POINTS,
    ]


def _metrics(word: str) -> Iterator[Answer]:
    from ampd.telemetry import reference
    from ampd.telemetry.metrics import FAMILIES

    for family in FAMILIES:
        if word in (family.name, family.name.removeprefix("ampd_")):
            yield {
                "kind": "metric", "name": family.name, "type": family.kind, "unit": family.unit, "doc": family.doc,
                "labels": {label.name: list(label.values) for label in family.labels}, "text": reference.explain(family.name),
            }  # fmt: skip


def _alerts(word: str) -> Iterator[Answer]:
    from ampd.telemetry import runbooks

    for name in runbooks.names():
        if word.lower() == name.lower():
            page = runbooks.runbook(name)
            yield {"kind": "alert", "name": name, "runbook": page, "text": _plain(page)}


def _keys(word: str) -> Iterator[Answer]:
    from ampd.core import keys

    for path, key in keys.table().items():
        if word in (path, path.rpartition(".")[2]):
            yield {
                "kind": "key", "name": path, "doc": key.doc, "unit": key.unit, "live": key.live, "default": key.default,
                "takes": _takes(key), "text": _key_page(key),
            }  # fmt: skip


def _causes(word: str) -> Iterator[Answer]:
    from ampd.core.ledger import Cause

    for cause in Cause:
        if word == cause:
            counters = _counters_of(cause)
            yield {
                "kind": "cause", "name": cause, "doc": cause.doc, "counters": counters,
                "text": "\n".join([f"{cause} (cause)", f"  {cause.doc}", *(f"  counted in: {name}" for name in counters)]),
            }  # fmt: skip


def _failpoints(word: str) -> Iterator[Answer]:
    from ampd.failpoints import POINTS, VARIABLE

    chosen = {name: point for name, point in POINTS.items() if word in (name, FAILPOINTS)}
    if not chosen:
        return
    how = f'{VARIABLE}="NAME=ACTION,..." of `ampd start`: kill, sleep:SECONDS, error:ERRNO; @N for the Nth time only'
    rows = [
        f"  {name:<22}{point.doc}{' Takes errors.' if point.takes_errors else ''}"
        for name, point in chosen.items()
    ]
    yield {
        "kind": "failpoint", "name": word, "points": {name: point.doc for name, point in chosen.items()},
        "text": "\n".join([f"{word} (failpoint)", *rows, f"  {how}"]),
    }  # fmt: skip


def _counters_of(cause: Cause) -> list[str]:
    from ampd.telemetry.metrics import CAUSE, FAMILIES

    return [f'{family.name}{{cause="{cause}"}}' for family in FAMILIES if CAUSE in family.labels]


def _key_page(key: Key) -> str:
    from ampd.core.change import show

    unit = f", in {key.unit}" if key.unit else ""
    how = f"live: ampctl set {key.path}=..." if key.live else "fixed: takes a restart of the job"
    return "\n".join(
        [f"{key.path} (key{unit})", f"  {key.doc}", f"  takes: {_takes(key)}", f"  default: {show(key.default)}", f"  {how}"]
    )  # fmt: skip


def _takes(key: Key) -> str:
    """The values that a key takes, from the schema that validates them."""
    import msgspec

    schema = msgspec.json.schema(key.type)
    return "; or ".join(_alternative(one) for one in schema.get("anyOf", [schema]))


_BOUNDS = {
    "minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than",
    "minLength": "length at least", "maxLength": "length at most",
}  # fmt: skip


def _alternative(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    bounds = [f"{words} {schema[name]}" for name, words in _BOUNDS.items() if name in schema]
    return ", ".join([str(schema.get("type", "any value")), *bounds])


def _plain(page: str) -> str:
    """A runbook for a terminal: headings in capitals, and no marks of Markdown that only a browser needs."""
    lines = [
        line.lstrip("# ").upper() if line.startswith("## ") else line.removeprefix("# ")
        for line in page.splitlines()
        if not line.startswith("```")
    ]
    return "\n".join(lines).replace("**", "").strip()


def _nearest(word: str) -> str:
    from ampd.core.keys import did_you_mean

    return did_you_mean(word, words()) or did_you_mean(f"ampd_{word}", words())
