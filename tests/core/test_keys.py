"""The table of keys: complete, documented, and found by the names that people type."""

from __future__ import annotations

import msgspec
import pytest

from ampd.core import keys
from ampd.core.config import JobConfig
from ampd.core.keys import Key
from ampd.errors import ConfigError
from tests.core.jobs import job

LIVE = {
    "amp.dtype", "amp.min_scale", "amp.growth_interval", "amp.ladder", "amp.max_fp32_fallbacks", "optim.lr",
    "optim.weight_decay", "clip.max_norm", "checkpoint.every_windows", "evaluate.every_windows", "log.level",
}  # fmt: skip
FIXED = {
    "job.name",
    "job.seed",
    "batch.size",
    "amp.init_scale",
    "optim.name",
    "http.listen",
    "inject.allowed",
}


@pytest.mark.parametrize("key", keys.table().values(), ids=lambda key: key.path)
def test_each_key_says_what_it_is(key: Key) -> None:
    """Every key has a sentence of documentation and says whether it is live."""
    assert key.doc.endswith(".")
    assert key.doc[0].isupper() or ":" in key.doc or ";" in key.doc
    assert isinstance(key.live, bool)


def test_the_table_is_the_whole_file() -> None:
    """The table has exactly the leaves of the structs, in their order."""
    document = msgspec.to_builtins(job())
    leaves = [f"{section}.{name}" for section in document for name in document[section]]

    assert list(keys.table()) == leaves


def test_live_and_fixed_keys_are_as_promised() -> None:
    """What operators rely on changing is live, and what a worker is built from is not."""
    table = keys.table()

    assert {path for path in LIVE if not table[path].live} == set()
    assert {path for path in FIXED if table[path].live} == set()


def test_a_count_of_windows_says_so() -> None:
    """A key that counts windows or seconds has that as its unit."""
    for path, key in keys.table().items():
        for unit in ("windows", "seconds"):
            if path.endswith(f"_{unit}"):
                assert key.unit == unit, path


def test_the_default_is_that_of_the_struct() -> None:
    """The table shows the value that a key has when the file does not name it."""
    config = job()
    table = keys.table()

    assert table["amp.dtype"].default == "auto"
    assert table["workload.options"].default == {}
    assert table["job.name"].default is None
    assert table["optim.betas"].default == keys.value_of(config, "optim.betas")


@pytest.mark.parametrize(
    ("name", "path"),
    [("amp.dtype", "amp.dtype"), ("dtype", "amp.dtype"), ("max_norm", "clip.max_norm"), ("lr", "optim.lr")],
)
def test_a_key_is_found_by_its_path_or_its_unique_last_part(name: str, path: str) -> None:
    """`dtype` is enough where only one key ends in it."""
    assert keys.resolve(name).path == path


def test_an_ambiguous_name_lists_its_candidates() -> None:
    """Where several keys end in a name, nothing is guessed."""
    with pytest.raises(
        ConfigError, match=r"ambiguous.*checkpoint\.every_windows, evaluate\.every_windows"
    ) as refusal:
        keys.resolve("every_windows")

    assert refusal.value.hint == "give the full key"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("dtyp", "amp.dtype"),
        ("amp.dtyp", "amp.dtype"),
        ("max_nrom", "clip.max_norm"),
        ("optim.rl", "optim.lr"),
    ],
)
def test_a_mistyped_key_gets_a_suggestion(typed: str, meant: str) -> None:
    """The nearest key is named, with its full path."""
    with pytest.raises(ConfigError, match="is not a key; did you mean") as refusal:
        keys.resolve(typed)

    assert repr(meant) in str(refusal.value)
    assert refusal.value.field == typed


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    """A name that resembles no key is refused without a guess."""
    with pytest.raises(ConfigError, match=r"^'zzzzqqq' is not a key$"):
        keys.resolve("zzzzqqq")


def test_every_path_leads_to_a_value() -> None:
    """`value_of` finds each key of the table in a configuration."""
    config = job(clip={"max_norm": 2.0})

    values = {path: keys.value_of(config, path) for path in keys.table()}

    assert values["clip.max_norm"] == 2.0
    assert values["job.name"] == "toy"
    assert isinstance(config, JobConfig)


def test_sections_have_all_keys_in_the_order_of_the_table() -> None:
    """Section by section, as a configuration has them, what `sections` names is the table; a key begins with its section."""
    named = [(section, path) for section, paths in keys.sections().items() for path in paths]

    assert tuple(keys.sections()) == JobConfig.__struct_fields__
    assert [path for _section, path in named] == list(keys.table())
    assert all(path.startswith(f"{section}.") for section, path in named)
