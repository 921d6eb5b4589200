"""What is found out about a job file before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from ampd import preflight
from ampd.errors import ConfigError, PluginError
from tests.control.keyed import keyed
from tests.core.bench import job_config

FULL = ("stats", "clip", "fallback", "scaler", "autocast")


def test_a_plan_has_the_specs_that_are_named() -> None:
    """Stages in the order of the job file, the workload, and the configuration itself."""
    config = job_config()

    job = preflight.plan(config)

    assert [name for name, _spec in job.stages] == list(FULL)
    assert job.config is config


def test_facts_show_the_stages_by_slot() -> None:
    """Outermost first, whatever order the job file has."""
    facts = dict(preflight.facts(preflight.plan(job_config(pipeline__stages=FULL[::-1]))))

    assert facts["pipeline"].startswith("stats (OBSERVE) > clip (SHAPE) > fallback (RECOVER)")
    assert facts["job"] == "toy, 100 windows, seed 1"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"workload__name": "nope"}, "workload 'nope' is not installed"),
        ({"workload__options": {"batchsize": 3}}, "workload.options.batchsize is not an option"),
        ({"pipeline__stages": ("clipp",)}, "stage 'clipp' is not installed; did you mean 'clip'"),
        ({"pipeline__stages": FULL[:-1]}, "slot CAST takes exactly one stage, and has none"),
        ({"pipeline__stages": (*FULL, "clip")}, "names clip more than once"),
        ({"pipeline__options": {"clip": {"x": 1}}}, "pipeline.options.clip.x is not an option"),
        ({"pipeline__options": {"clop": {}}}, "pipeline.options.clop: no stage of that name"),
    ],
)  # fmt: skip
def test_what_a_job_file_names_must_be_there(keys: dict[str, object], message: str) -> None:
    """Plugins, their options and the slots of the pipeline, each with the key and what there is."""
    with pytest.raises((ConfigError, PluginError), match=message):
        preflight.plan(job_config(**keys))


def test_two_stages_in_one_slot_are_named() -> None:
    """The error says which two, since one of them has to go."""
    specs = dict(preflight.plan(job_config()).stages)
    stages = (("fallback", specs["fallback"]), ("again", specs["fallback"]))

    with pytest.raises(ConfigError, match="slot RECOVER takes exactly one stage, and has fallback and again"):
        preflight.check_slots(stages)


def test_a_socket_path_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and length, before anything is made."""
    monkeypatch.setenv("AMPD_RUNTIME_DIR", "/tmp/" + "x" * 100)

    with pytest.raises(ConfigError, match=r"has 1\d\d bytes; a unix socket takes at most 107"):
        preflight.plan(job_config())


def test_words_of_the_command_line_win(home: Path) -> None:
    """Any key, live or fixed, short where that is unique."""
    (home / "job.toml").write_text('[job]\nname="toy"\ndirectory="d"\nwindows=3\n[workload]\nname="digits"\n')

    config = preflight.read(home / "job.toml", {"windows": "7", "dtype": "float16"})

    assert (config.job.windows, config.amp.dtype) == (7, "float16")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"job.windows": "0"}, "job.windows"),
        ({"job.epochs": "3"}, "windows or epochs, and not both"),
        ({"job.window": "3"}, "did you mean 'job.windows'"),
    ],
)
def test_a_word_is_checked_like_the_file(home: Path, words: dict[str, str], message: str) -> None:
    """Type, bounds and the rules that span keys."""
    (home / "job.toml").write_text('[job]\nname="toy"\ndirectory="d"\nwindows=3\n[workload]\nname="digits"\n')

    with pytest.raises(ConfigError, match=message):
        preflight.read(home / "job.toml", words)


def test_a_remote_job_says_who_may_come_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and names are among the facts; without keys the plan is refused before anything is made."""
    monkeypatch.setenv("AMPD_KEYS_DIR", str(home / "keys"))
    config = job_config(control__listen="tcp://127.0.0.1:5555")
    with pytest.raises(ConfigError, match="TCP needs a key of the daemon"):
        preflight.plan(config)

    keyed(home / "keys")
    facts = dict(preflight.facts(preflight.plan(config)))

    assert facts["remote"] == "tcp://127.0.0.1:5555, events on the next port, for wall, alice, boss"
