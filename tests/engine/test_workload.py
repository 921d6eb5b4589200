"""What a plugin has built, looked at before it is trained."""

from __future__ import annotations

from typing import Any

import pytest

from ampd.engine.workload import required
from ampd.errors import PluginError
from tests.engine import toy


def test_a_workload_that_has_all_is_taken() -> None:
    """As it is."""
    workload = toy.Toy()

    assert required(workload, "a:build") is workload


def test_what_it_lacks_is_named() -> None:
    """All of it at once, with what a workload has."""
    with pytest.raises(
        PluginError, match=r"'a:build' built something of type object without model, .*loss; a workload has"
    ):
        required(object(), "a:build")


@pytest.mark.parametrize("windows", [0, -1, 2.5, None])
def test_an_epoch_without_windows_is_refused(windows: Any) -> None:
    """Nothing could be trained in it, and positions are counted in epochs."""
    workload = toy.Toy()
    workload.windows_per_epoch = windows

    with pytest.raises(PluginError, match=f"windows_per_epoch = {windows}; expected a whole number"):
        required(workload, "a:build")
