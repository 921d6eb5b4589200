"""What a job file's reader sees of the two workloads: specs and options, without torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from ampd.core.config import JobConfig
from ampd.engine.registry import load, options_of, workload_spec
from ampd.errors import ConfigError
from tests.plugins.jobs import NAMES

PLUGINS = Path(__file__).parents[2] / "plugins"
LOADS_NO_TORCH = """
import sys
from ampd.engine.registry import load, options_of, workload_spec
spec = workload_spec({name!r})
options = options_of(spec, {{}}, "workload.options")
if spec.check:
    load(spec.check)(options)
sys.exit(sorted({{"torch", "numpy", "sklearn"}} & set(sys.modules)) or 0)
"""


def check(name: str, **options: object) -> None:
    """Validate options as `ampd check` does."""
    spec = workload_spec(name)
    given = options_of(spec, options, "workload.options")
    if spec.check:
        load(spec.check)(given)


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_and_its_check_load_no_torch(name: str) -> None:
    """Validating a whole job file needs neither torch nor NumPy nor scikit-learn."""
    code = LOADS_NO_TORCH.format(name=name)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_plugins_own_job_file_is_valid(name: str) -> None:
    """job.toml names the workload by its entry point and has only keys and options that exist."""
    text = (PLUGINS / f"ampd-{name}" / "job.toml").read_text()

    config = msgspec.convert(tomllib.loads(text), JobConfig)

    assert config.workload.name == name
    check(name, **config.workload.options)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(name: str) -> None:
    """Each option has a description, which is what the error messages and `ampd plugins` show."""
    for field in msgspec.inspect.type_info(workload_spec(name).options).fields:  # type: ignore[attr-defined]  # a StructType
        extra = field.type.extra_json_schema if isinstance(field.type, msgspec.inspect.Metadata) else None

        assert extra and extra["description"], field.name


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_has_every_option_with_its_default(name: str) -> None:
    """The table in the README is the options struct, line by line."""
    readme = (PLUGINS / f"ampd-{name}" / "README.md").read_text()
    defaults = msgspec.to_builtins(workload_spec(name).options())

    for option, default in defaults.items():
        shown = "`[]`" if default == () else str(default)
        assert f"| `{option}` | {shown} |" in readme


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("bytegpt", "context", 7),
        ("bytegpt", "layers", 0),
        ("bytegpt", "dropout", 1.0),
        ("bytegpt", "text", "one.txt"),
        ("digits", "channels", 0),
        ("digits", "dropout", -0.1),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(name: str, option: str, value: object) -> None:
    """The error names the table and the option."""
    with pytest.raises(ConfigError, match=rf"workload\.options.*{option}"):
        check(name, **{option: value})


def test_an_unknown_option_gets_a_suggestion() -> None:
    """A typing error is met with the nearest option."""
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        check("bytegpt", layer=2)


@pytest.mark.parametrize(("width", "heads"), [(192, 5), (36, 12)])
def test_heads_that_do_not_fit_the_width_are_refused(width: int, heads: int) -> None:
    """A head needs a whole and even number of dimensions, and the message says both numbers."""
    with pytest.raises(ConfigError, match=rf"width = {width}, heads = {heads}"):
        check("bytegpt", width=width, heads=heads)
