"""From an operator's words to the next configuration: whole and valid, or refused with what to do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core import edits, keys
from ampd.core.change import (
    PRESETS,
    Difference,
    change,
    differences,
    override,
    parse,
    preset,
    read_job,
    show,
)
from ampd.core.history import History
from ampd.core.objections import Objection
from ampd.core.protocol import Code, Set
from ampd.core.rules import MOST
from ampd.errors import ConfigError
from tests.core.jobs import LEAST, job

LIVE_BOOLS = [path for path, key in keys.table().items() if key.live and isinstance(key.default, bool)]

# words of `ampctl set` -> typed change: one row for each type of key, and each way to write it.
PARSED: list[tuple[str, str, str, Any]] = [
    ("dtype", "float16", "amp.dtype", "float16"),
    ("amp.enabled", "true", "amp.enabled", True),
    ("amp.enabled", "False", "amp.enabled", False),
    ("growth_interval", "100", "amp.growth_interval", 100),
    ("lr", "1e-4", "optim.lr", 1e-4),
    ("lr", "1", "optim.lr", 1.0),
    ("max_norm", "0.5", "clip.max_norm", 0.5),
    ("max_norm", "none", "clip.max_norm", None),
    ("ladder", "retry,float32", "amp.ladder", ("retry", "float32")),
    ("ladder", "[retry, float32]", "amp.ladder", ("retry", "float32")),
    ("ladder", "bfloat16", "amp.ladder", ("bfloat16",)),
]  # fmt: skip

UNPARSED = [
    ("dtype", "fp16", "expected one of auto, float16, bfloat16, float32"),
    ("dtype", "", "expected one of auto"),
    ("amp.enabled", "yes", "expected `bool`"),
    ("growth_interval", "1.5", "expected `int`"),
    ("growth_interval", "0", r">= 1 \(windows\)"),
    ("lr", "fast", "expected `float`"),
    ("lr", "nan", "> 0.0"),
    ("lr", "inf", "<= 100.0"),
    ("lr", "none", "expected `float`"),
    ("ladder", "float16", "expected one of retry, bfloat16, float32"),
    ("ladder", "", "expected at least one of retry"),
    ("job.name", "To y", "expected at most 32 of a-z, 0-9 and -"),
    ("http.listen", "9647", "expected HOST:PORT$"),
    ("control.listen", "gpu7:5555", "expected tcp://HOST:PORT$"),
    ("rendezvous", "gpu7", "expected HOST:PORT$"),
    ("processes", "all", 'expected a number, "auto" or "env"$'),
    ("processes", "0", "expected `int` >= 1$"),
    ("job.windows", "many", r"expected `int`, got `str` \(windows\)$"),
]


@pytest.mark.parametrize(("name", "text", "path", "value"), PARSED)
def test_words_become_typed_values(name: str, text: str, path: str, value: Any) -> None:
    """What an operator types becomes the value of the key's type, under the key's full path."""
    assert parse({name: text}) == {path: value}


@pytest.mark.parametrize(("name", "text", "expected"), UNPARSED)
def test_words_of_the_wrong_type_are_refused(name: str, text: str, expected: str) -> None:
    """The error shows the key, what was given and what was expected; the hint says what the key is."""
    with pytest.raises(ConfigError, match=expected) as refusal:
        parse({name: text})

    key = keys.resolve(name)
    assert f"{key.path} = {text!r}" in str(refusal.value)
    assert (refusal.value.field, refusal.value.hint) == (key.path, key.doc)


def test_one_bad_change_stops_them_all() -> None:
    """A set of changes is made whole or not at all, and the old configuration stays as it was."""
    config = job()
    before = msgspec.to_builtins(config)

    with pytest.raises(ConfigError):
        change(config, {"optim.lr": 0.5, "amp.growth_interval": 0})

    assert msgspec.to_builtins(config) == before


def test_a_change_gives_a_new_configuration() -> None:
    """The next configuration has the changes, everything else of the last, and leaves the last alone."""
    config = job(clip={"max_norm": 1.0})

    changed = change(config, {"amp.dtype": "bfloat16", "max_norm": None})

    assert (changed.amp.dtype, changed.clip.max_norm) == ("bfloat16", None)
    assert (config.amp.dtype, config.clip.max_norm) == ("auto", 1.0)
    assert change(changed, {"amp.dtype": "auto", "clip.max_norm": 1.0}) == config


def test_a_change_touches_no_other_section() -> None:
    """What it does not move stays the same object, also where a key is set to what it holds: so little is rebuilt."""
    config = job()

    changed = change(config, {"optim.lr": 0.5, "amp.hysteresis": config.amp.hysteresis})

    touched = [
        section for section in keys.sections() if getattr(changed, section) is not getattr(config, section)
    ]
    assert touched == ["optim"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim.lr": "fast"}, "change: optim.lr = 'fast': expected `float`, got `str`"),
        ({"checkpoint.keep": 1}, "change: checkpoint.keep = 1: expected `int` >= 2"),
        (
            {"amp.ladder": ["never"]},
            "change: amp.ladder = ['never']: expected one of retry, bfloat16, float32",
        ),
    ],
)
def test_a_bad_value_of_a_change_is_named_by_its_whole_key(changes: dict[str, Any], message: str) -> None:
    """A journal or another program may bring any value: the error has the key, what was given and what was expected."""
    with pytest.raises(ConfigError) as refusal:
        change(job(), changes)

    assert str(refusal.value) == message
    assert [refusal.value.field] == list(changes)


def test_sections_that_only_look_alike_do_not_differ() -> None:
    """Differences are of values: two configurations read from one file have none."""
    one, other = (job(clip={"max_norm": 1.0}) for _ in range(2))

    assert one.clip is not other.clip
    assert differences(one, other) == ()


@pytest.mark.parametrize("path", [path for path, key in keys.table().items() if not key.live])
def test_a_fixed_key_is_refused_with_what_to_do(path: str) -> None:
    """What needs a restart is refused, even with the value that it has, and the hint says what to do."""
    config = job()

    with pytest.raises(ConfigError, match=f"^{path} is fixed while the job runs$") as refusal:
        change(config, {path: keys.value_of(config, path)})

    assert "job file" in refusal.value.hint


def test_rules_that_span_keys_hold_after_a_change() -> None:
    """A floor may not be raised above the ceiling; moving both together may."""
    config = job()

    with pytest.raises(ConfigError, match=r"amp.min_scale"):
        change(config, {"amp.min_scale": 2.0**30})

    moved = change(config, {"amp.min_scale": 2.0**30, "amp.max_scale": 2.0**31})
    assert moved.amp.min_scale == 2.0**30


def test_an_infinite_limit_is_refused() -> None:
    """`max_norm=inf` would pass the bound of the key, and mean nothing."""
    with pytest.raises(ConfigError, match=r"clip.max_norm = inf: expected a finite number"):
        change(job(), parse({"max_norm": "inf"}))


@pytest.mark.parametrize("text", ["9" * 17, "9" * 30])
def test_a_whole_number_that_no_worker_can_be_told_is_refused(text: str) -> None:
    """A key without an upper bound still ends where messages and JSON do."""
    with pytest.raises(
        ConfigError, match=rf"growth_interval = \d+: expected a whole number of at most {MOST}"
    ):
        change(job(), parse({"growth_interval": text}))

    assert change(job(), parse({"growth_interval": str(MOST)})).amp.growth_interval == MOST


@pytest.mark.parametrize("options", [{"seed": 10**20}, {"deep": [1, {"x": -(10**20)}]}])
def test_so_is_one_in_a_plugins_options(options: dict[str, Any]) -> None:
    """Options travel in the same messages, however deep they are."""
    with pytest.raises(ConfigError, match=r"^workload.options = -?10+: expected a whole number"):
        job(workload={"options": options})


def test_an_infinite_option_is_the_plugins_own_matter() -> None:
    """What it means is not ours to say."""
    assert job(workload={"options": {"x": float("inf")}}).workload.options == {"x": float("inf")}


def test_a_key_given_twice_is_refused() -> None:
    """A short and a full name of one key in one command: neither is ignored."""
    objection = edits.plan(job(), History(job()), Set(changes={"dtype": "float16", "amp.dtype": "bfloat16"}))

    assert isinstance(objection, Objection)
    assert (objection.code, objection.field) == (Code.BAD_VALUE, "amp.dtype")


@given(st.dictionaries(st.sampled_from(LIVE_BOOLS), st.booleans()))
def test_a_change_moves_exactly_its_keys(changes: dict[str, bool]) -> None:
    """The differences that a change makes are those that were asked for, as far as they differ."""
    config = job()

    moved = differences(config, change(config, changes))

    assert {d.key: d.new for d in moved} == {
        path: value for path, value in changes.items() if keys.value_of(config, path) is not value
    }


@given(
    st.fixed_dictionaries(
        {
            "optim.lr": st.floats(1e-9, 100),
            "amp.growth_interval": st.integers(1, 10**6),
            "amp.on_fallback_limit": st.sampled_from(["warn", "raise_dtype", "pause", "abort"]),
            "clip.max_norm": st.none() | st.floats(1e-9, 1e9),
            "amp.ladder": st.lists(
                st.sampled_from(["retry", "bfloat16", "float32"]), min_size=1, max_size=3
            ).map(tuple),
        }
    )
)
def test_what_is_shown_can_be_typed_back(changes: dict[str, Any]) -> None:
    """`set` takes a value as `get` shows it: typing it again gives the same, to the digits shown."""
    typed = parse({path: show(value) for path, value in changes.items()})

    assert {path: show(value) for path, value in typed.items()} == {p: show(v) for p, v in changes.items()}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "none"), (True, "true"), (False, "false"), (65536.0, "65536"), (1e-5, "1e-05"), (3, "3"),
        ("float16", "float16"), (("retry", "float32"), "[retry, float32]"), ([0.9, 0.999], "[0.9, 0.999]"),
    ],
)  # fmt: skip
def test_values_are_shown_as_they_are_typed(value: Any, shown: str) -> None:
    """An operator sees the words of the job file, never Python's."""
    assert show(value) == shown


def test_a_difference_reads_as_a_sentence() -> None:
    """One key, what it was and what it is."""
    assert str(Difference(key="amp.dtype", old="float16", new=None)) == "amp.dtype float16 -> none"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_live_change(name: str) -> None:
    """Each preset can be applied to a running job, and then it holds."""
    changed = change(job(), preset(name))

    assert {path: keys.value_of(changed, path) for path in preset(name)} == preset(name)


def test_presets_are_as_promised() -> None:
    """Basic is off, advanced is float16, ultra is bfloat16 with the fallback and its tight limit."""
    basic, advanced, ultra = (change(job(), preset(name)).amp for name in ("basic", "advanced", "ultra"))

    assert not basic.enabled
    assert (advanced.dtype, advanced.enable_tf32, advanced.track_amp_stats) == ("float16", True, True)
    assert (ultra.dtype, ultra.enable_fallback_to_fp32, ultra.max_fp32_fallbacks) == ("bfloat16", True, 3)


def test_an_unknown_preset_lists_those_there_are() -> None:
    """The error names what can be asked for."""
    with pytest.raises(ConfigError, match="'turbo' is not a preset; use one of basic, advanced, ultra"):
        preset("turbo")


def test_the_shortest_job_file_is_enough() -> None:
    """A name, a directory, a length and a workload; all the rest has a default."""
    assert read_job(LEAST) == job()


def test_a_whole_file_is_read_as_written() -> None:
    """Tables, plugin options and lists arrive as they stand in the file."""
    text = LEAST + (
        '[workload.options]\nwidth = 8\n[pipeline]\nstages = ["fallback", "scaler", "autocast"]\n'
        "[pipeline.options.clip]\nx = 1\n[optim]\nbetas = [0.8, 0.9]\n"
    )

    config = read_job(text)

    assert config.workload.options == {"width": 8}
    assert config.pipeline.stages == ("fallback", "scaler", "autocast")
    assert config.pipeline.options == {"clip": {"x": 1}}
    assert config.optim.betas == (0.8, 0.9)


BROKEN = [
    ("x =", "job.toml is not TOML: Invalid value", ""),
    ('[job]\nname = "again"', "job.toml is not TOML: Cannot declare", ""),
    ("[nope]", "job.toml: 'nope' is not a key", "nope"),
    ("[ampp]", "job.toml: 'ampp' is not a key; did you mean 'amp'", "ampp"),
    ('[amp]\ndtyp = "float16"', "job.toml: 'amp.dtyp' is not a key; did you mean 'amp.dtype'", "amp.dtyp"),
    ('[amp]\ndtype = "fp16"', "job.toml: amp.dtype = 'fp16': expected one of auto, float16", "amp.dtype"),
    ("[batch]\nsize = 2.0", "job.toml: batch.size = 2.0: expected `int`, got `float`", "batch.size"),
    ("[batch]\nsize = 0", r"job.toml: batch.size = 0: expected `int` >= 1 \(samples\)", "batch.size"),
    ("[optim]\nlr = true", "job.toml: optim.lr = True: expected `float`, got `bool`", "optim.lr"),
    ("[pipeline]\nstages = [1]", r"job.toml: pipeline.stages = \[1\]: expected `str`", "pipeline.stages"),
    ("[amp.dtype]\nx = 1", "job.toml: amp.dtype = {'x': 1}: expected one of", "amp.dtype"),
    ("[[amp]]\nx = 1", r"job.toml: amp = \[{'x': 1}\]: expected a table", "amp"),
    ("[batch]\nsize = " + "9" * 5000, "job.toml is not TOML: Exceeds the limit", ""),
    ("[workload.options]\nx = " + "[" * 5000, "job.toml is not TOML: maximum recursion", ""),
]


@pytest.mark.parametrize(("text", "message", "field"), BROKEN)
def test_a_broken_file_says_where_and_what(text: str, message: str, field: str) -> None:
    """One message: which file, which key, what was given, what was expected."""
    with pytest.raises(ConfigError, match=message) as refusal:
        read_job(LEAST + text, where="job.toml")

    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("text", "missing", "hint"),
    [
        ("", r"\[job\]", "it needs name and directory"),
        (LEAST.partition("[workload]")[0], r"\[workload\]", "it needs name;"),
        (LEAST.replace('name = "toy"\n', "", 1), r"job\.name", keys.table()["job.name"].doc),
    ],
)
def test_what_a_job_file_lacks_is_named(text: str, missing: str, hint: str) -> None:
    """A file that leaves out what has no default is told which table or key it lacks, and what goes there."""
    with pytest.raises(ConfigError, match=f"^job.toml: {missing} is missing$") as refusal:
        read_job(text, where="job.toml")

    assert refusal.value.hint.startswith(hint)


def test_the_command_line_may_override_fixed_keys() -> None:
    """Before anything runs, any key can be given; what comes out is checked like a file."""
    config = override(job(), {"job.seed": 7, "dtype": "float16"})

    assert (config.job.seed, config.amp.dtype) == (7, "float16")
    with pytest.raises(ConfigError, match=r"--set: batch.size = 0"):
        override(job(), {"batch.size": 0})
