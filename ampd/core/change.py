"""From text to configuration, and from one configuration to the next.

Everything that turns an operator's input into a JobConfig is here: reading a job file, parsing the values of
`ampctl set`, and applying changes; the rules that span keys are in `core.rules`. All of it raises ConfigError with the
key, what was given, what was expected and what to do; a change either yields a whole valid configuration or nothing.
"""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Mapping
from itertools import chain
from typing import Any

import msgspec
from msgspec.structs import astuple, replace

from ampd.core import keys, mistakes, rules
from ampd.core.config import JobConfig
from ampd.core.keys import Key
from ampd.core.section import Section
from ampd.errors import ConfigError


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One key that a change moves from `old` to `new`."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} {show(self.old)} -> {show(self.new)}"


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "basic": {"amp.enabled": False},
    "advanced": {
        "amp.enabled": True, "amp.dtype": "float16", "amp.enable_tf32": True,
        "amp.enable_cudnn_benchmark": True, "amp.track_amp_stats": True,
    },
    "ultra": {
        "amp.enabled": True, "amp.dtype": "bfloat16", "amp.enable_tf32": True,
        "amp.enable_cudnn_benchmark": True, "amp.track_amp_stats": True,
        "amp.enable_fallback_to_fp32": True, "amp.max_fp32_fallbacks": 3,
    },
}  # fmt: skip


def read_job(text: str, *, where: str = "job file") -> JobConfig:
    """The validated configuration in a job file's text; `where` names it in errors."""
    try:
        document = tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also for numbers and nesting that Python's parser gives up on
        raise ConfigError(
            f"{where} is not TOML: {error}", hint="strings need quotes, tables are [name]"
        ) from None
    _refuse_unknown(JobConfig, document, "", where)
    return build(document, where=where)


def build(document: Mapping[str, Any], *, where: str = "configuration") -> JobConfig:
    """The validated configuration of nested plain tables."""
    try:
        config = msgspec.convert(document, JobConfig)
    except msgspec.ValidationError as error:
        raise mistakes.of_document(error, document, where) from None
    rules.check(config)
    return config


def parse(assignments: Mapping[str, str], *, where: str = "") -> dict[str, Any]:
    """Typed changes from the words of `ampctl set`: {"dtype": "float16"} -> {"amp.dtype": "float16"}."""
    return {
        key.path: _parse_value(key, text, where)
        for key, text in ((keys.resolve(k), v) for k, v in assignments.items())
    }


def change(config: JobConfig, changes: Mapping[str, Any]) -> JobConfig:
    """The next configuration: `config` with every change made, or ConfigError and nothing made.

    A section in which nothing changes stays the same object, and is not looked into: this is done between two windows.
    """
    document: dict[str, Any] = {}
    paths = []
    for name, value in changes.items():
        key = keys.resolve(name)
        if not key.live:
            raise ConfigError(
                f"{key.path} is fixed while the job runs",
                field=key.path,
                hint="change it in the job file, then stop and start the job",
            )
        section, _dot, _rest = key.path.partition(".")
        if section not in document:
            document[section] = msgspec.to_builtins(getattr(config, section))
        _put(document, key.path, value)
        paths.append(key.path)
    changed = _with_sections(config, document)
    rules.check_change(changed, paths, document.keys())
    return changed


def override(config: JobConfig, changes: Mapping[str, Any]) -> JobConfig:
    """`config` with any keys changed, live or not: for the command line, before anything runs."""
    document = msgspec.to_builtins(config)
    for name, value in changes.items():
        _put(document, keys.resolve(name).path, value)
    return build(document, where="--set")


def differences(old: JobConfig, new: JobConfig) -> tuple[Difference, ...]:
    """The keys in which two configurations differ; a section that both share is not looked into."""
    sections = zip(keys.sections().values(), astuple(old), astuple(new), strict=True)
    paths = chain.from_iterable(paths for paths, a, b in sections if a is not b)
    pairs = ((path, keys.value_of(old, path), keys.value_of(new, path)) for path in paths)
    return tuple(Difference(key=path, old=a, new=b) for path, a, b in pairs if a != b)


def preset(name: str) -> Mapping[str, Any]:
    """The changes that a preset makes; raises ConfigError for an unknown one."""
    if name not in PRESETS:
        raise ConfigError(f"{name!r} is not a preset; use one of {', '.join(PRESETS)}", field="preset")
    return PRESETS[name]


def show(value: Any) -> str:
    """A value as an operator would write it."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case tuple() | list():
            return "[" + ", ".join(show(v) for v in value) + "]"
    return str(value)


def _with_sections(config: JobConfig, document: Mapping[str, Any]) -> JobConfig:
    """`config` with some sections made anew of plain tables; one that comes out equal is kept."""
    sections = {}
    for name, table in document.items():
        old = getattr(config, name)
        try:
            new = msgspec.convert(table, type(old))
        except msgspec.ValidationError as error:
            raise mistakes.of_document(error, document, "change", section=name) from None
        sections[name] = old if new == old else new
    changed: JobConfig = replace(config, **sections)
    return changed


def _parse_value(key: Key, text: str, where: str) -> Any:
    plain: Any = text
    if text == "none" and type(None) in typing.get_args(key.type):
        plain = None
    elif "tuple" in str(key.type):
        plain = [part.strip() for part in text.strip("[]").split(",") if part.strip()]
    try:
        return msgspec.convert(plain, key.type, strict=False)
    except msgspec.ValidationError as error:
        raise mistakes.of_value(key, text, str(error), where) from None


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        document = document[parent]
    document[last] = value


def _refuse_unknown(section: type[Section], table: Mapping[str, Any], prefix: str, where: str) -> None:
    hints = typing.get_type_hints(section)
    for name, value in table.items():
        if name not in hints:
            path = prefix + name
            known = [*keys.table(), *{path.split(".")[0] for path in keys.table()}]
            raise ConfigError(f"{where}: {path!r} is not a key{keys.did_you_mean(path, known)}", field=path)
        hint = hints[name]
        if isinstance(hint, type) and issubclass(hint, Section) and isinstance(value, Mapping):
            _refuse_unknown(hint, value, f"{prefix}{name}.", where)
