"""What TAB offers, as click asks for it and as a real bash gets it."""

from __future__ import annotations

import os
import subprocess
import sys
import typing

import pytest
from click.shell_completion import ShellComplete

from ampd.cli.ampctl import cli
from ampd.core.change import PRESETS
from ampd.core.faults import Fault
from ampd.core.keys import table


def offered(*words: str) -> list[str]:
    """What is offered for the last of these words."""
    complete = ShellComplete(cli, {}, "ampctl", "_AMPCTL_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def test_verbs_are_offered() -> None:
    """Of ampctl, and of a group."""
    assert offered("ro") == ["rollback"]
    assert offered("overlay", "") == ["show", "drop"] or offered("overlay", "") == ["drop", "show"]


def test_get_offers_every_key() -> None:
    """By its full name, and short where that is unique; `name` is a key of several tables."""
    found = offered("get", "")

    assert set(table()) <= set(found)
    assert "dtype" in found
    assert "name" not in found


def test_set_offers_live_keys_only() -> None:
    """With their equals sign; a fixed key would be refused."""
    assert offered("set", "optim.w") == ["optim.weight_decay=", "optim.warmup_windows="]
    assert offered("set", "batch.") == []
    assert "amp.dtype=" in offered("set", "lr=1", "amp.")


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (("dtype=",), ["dtype=auto", "dtype=float16", "dtype=bfloat16", "dtype=float32"]),
        (("amp.dtype=fl",), ["amp.dtype=float16", "amp.dtype=float32"]),
        (("dtype", "="), ["auto", "float16", "bfloat16", "float32"]),
        (("dtype", "=", "fl"), ["float16", "float32"]),
        (("enable_tf32=t",), ["enable_tf32=true"]),
        (("optim.lr=",), []),
        (("nonsense=",), []),
    ],
)
def test_set_offers_values_of_a_key(words: tuple[str, ...], values: list[str]) -> None:
    """Where there are few; the whole word, or the value alone where the shell has split it at the equals sign."""
    assert offered("set", *words) == values


def test_presets_and_faults_are_offered() -> None:
    """All that there are."""
    assert offered("preset", "") == list(PRESETS)
    assert offered("inject", "") == list(typing.get_args(Fault))


def test_what_can_be_explained_is_offered() -> None:
    """Alerts, metrics, keys and causes, so that an operator need not know how a name goes on."""
    assert offered("explain", "AmpdFallbackSp") == ["AmpdFallbackSpike"]
    assert "ampd_fp32_fallbacks_total" in offered("explain", "ampd_fp32")
    assert offered("explain", "transi") == ["transient"]


def test_a_real_shell_gets_them() -> None:
    """The line of --help switches it on: bash asks the program, and is answered without a daemon."""
    environment = os.environ | {
        "_AMPCTL_COMPLETE": "bash_complete", "COMP_WORDS": "ampctl set dtype = fl", "COMP_CWORD": "4",
    }  # fmt: skip
    code = "from ampd.cli.ampctl import main; main()"

    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )

    assert ended.stdout.split() == ["plain,float16", "plain,float32"]


def test_how_to_switch_it_on_is_in_the_help() -> None:
    """With the variable that click looks for."""
    help_text = cli.help or ""

    assert 'eval "$(_AMPCTL_COMPLETE=bash_source ampctl)"' in help_text
