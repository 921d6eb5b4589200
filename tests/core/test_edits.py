"""What a request would change, with the code of each refusal; and what a reload may and may not take over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core import edits, keys
from ampd.core.edits import Edit
from ampd.core.history import History
from ampd.core.objections import Objection
from ampd.core.protocol import Code, Preset, Set
from ampd.errors import ConfigError
from tests.core.bench import job_config

FILE = History(job_config())


def test_an_edit_has_typed_values_and_what_they_move() -> None:
    """Words become values by their full key; what holds already is no difference."""
    planned = edits.plan(job_config(), FILE, Set(changes={"lr": "0.5", "dtype": "auto"}))

    assert isinstance(planned, Edit)
    assert planned.changes == {"optim.lr": 0.5, "amp.dtype": "auto"}
    assert [str(d) for d in planned.differences] == ["optim.lr 0.001 -> 0.5"]


@given(
    words=st.dictionaries(
        st.one_of(st.text(), st.sampled_from(sorted(keys.table()))), st.text(), min_size=1, max_size=4
    )
)
def test_any_words_are_an_edit_or_an_objection(words: dict[str, str]) -> None:
    """Never an exception, whatever an operator types; an objection always has a message."""
    planned = edits.plan(job_config(), FILE, Set(changes=words))

    assert isinstance(planned, Edit) or (isinstance(planned, Objection) and planned.message)


@pytest.mark.parametrize("path", sorted(path for path, key in keys.table().items() if not key.live))
def test_every_fixed_key_is_immutable(path: str) -> None:
    """Each with its name, and what to do instead."""
    planned = edits.plan(job_config(), FILE, Set(changes={path: "1"}))

    assert isinstance(planned, Objection)
    assert (planned.code, planned.field) == (Code.IMMUTABLE, path)
    assert "stop and start" in planned.hint


@pytest.mark.parametrize("name", ["basic", "advanced", "ultra"])
def test_every_preset_can_be_planned(name: str) -> None:
    """From the default configuration, each is a valid change."""
    assert isinstance(edits.plan(job_config(), FILE, Preset(name=name)), Edit)


def test_a_reload_is_split_by_what_is_live() -> None:
    """Live keys with their new values, fixed ones by name."""
    live, fixed = edits.split_by_life(job_config(), job_config(optim__lr=0.5, batch__size=64))

    assert (live, fixed) == ({"optim.lr": 0.5}, ("batch.size",))


def test_a_change_that_is_no_longer_valid_is_left_out() -> None:
    """A recorded change must not keep a daemon from starting on a job file that was edited since."""
    config = job_config(amp__max_scale=2.0)

    assert edits.rebased(config, {"amp.min_scale": 4.0}) == config
    with pytest.raises(ConfigError):
        edits.edit(config, {"amp.min_scale": 4.0})
