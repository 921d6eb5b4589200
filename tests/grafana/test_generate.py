"""The generator: what is checked in is what it makes, and its YAML is YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grafana.generate.__main__ import main
from grafana.generate.yaml import to_yaml
from tests.telemetry.servers import needs_servers, run_tool


def test_everything_that_is_checked_in_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    """Change the generator, then run it: what it says about stale files is the failure's message."""
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_or_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` writes nothing and says which file to make again."""
    main(["--out", str(tmp_path)])
    (tmp_path / "prometheus" / "rules.yml").write_text("edited by hand")
    (tmp_path / "dashboards" / "ampd-overview.json").unlink()
    capsys.readouterr()

    assert main(["--check", "--out", str(tmp_path)]) == 1

    complaint = capsys.readouterr().err
    assert "rules.yml is stale" in complaint
    assert "ampd-overview.json is stale" in complaint
    assert "ampd-precision.json" not in complaint
    assert "alerts.yml" not in complaint


def test_a_time_scale_writes_the_rules_alone(tmp_path: Path) -> None:
    """Dashboards and rule tests have no scale."""
    assert main(["--time-scale", "60", "--out", str(tmp_path)]) == 0

    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written == [tmp_path / "prometheus" / "rules.yml"]
    assert 'for: "5s"' in written[0].read_text()


@needs_servers
def test_scaled_rules_are_rules(tmp_path: Path) -> None:
    """promtool accepts them at the scale that the end-to-end test uses."""
    main(["--time-scale", "60", "--out", str(tmp_path)])

    run_tool("promtool", "check", "rules", str(tmp_path / "prometheus" / "rules.yml"))


@pytest.mark.parametrize("scale", ["0", "-1", "601", "fast"])
def test_a_time_scale_out_of_range_is_refused(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage error, exit 2, nothing written."""
    with pytest.raises(SystemExit, match="2"):
        main(["--time-scale", scale])

    assert "--time-scale" in capsys.readouterr().err


def test_runbooks_can_live_anywhere(tmp_path: Path) -> None:
    """A pager needs an address that it can open."""
    main(["--runbooks", "https://git.example.org/ampd/runbooks", "--out", str(tmp_path)])

    text = (tmp_path / "prometheus" / "rules.yml").read_text()
    assert "https://git.example.org/ampd/runbooks/AmpdDown.md" in text


def test_dashboards_are_stable_json(tmp_path: Path) -> None:
    """Two runs give the same bytes, and Grafana's names."""
    main(["--out", str(tmp_path)])
    first = (tmp_path / "dashboards" / "ampd-overview.json").read_bytes()
    main(["--out", str(tmp_path)])

    assert (tmp_path / "dashboards" / "ampd-overview.json").read_bytes() == first
    assert {"schemaVersion", "templating", "panels", "uid"} <= json.loads(first).keys()


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"a": "no"}, 'a: "no"\n'),
        ({"a": 1, "b": True, "c": None}, "a: 1\nb: true\nc: null\n"),
        ({"a": []}, "a: []\n"),
        ({"a": {}}, "a: {}\n"),
        ({"a": ["x", 2]}, 'a:\n  - "x"\n  - 2\n'),
        ({"a": [{"b": 1, "c": [3]}]}, "a:\n  - b: 1\n    c:\n      - 3\n"),
        ({"a": "one\ntwo\n"}, "a: |\n  one\n  two\n"),
        ({"a": [{"b": "x\n\ny\n"}]}, "a:\n  - b: |\n      x\n\n      y\n"),
        ({"a": 'say "hi": #1'}, 'a: "say \\"hi\\": #1"\n'),
    ],
)
def test_yaml_is_written_so_that_nothing_changes_its_type(document: dict[str, Any], text: str) -> None:
    """Strings are quoted, blocks are indented, empty collections are explicit."""
    assert to_yaml(document) == text
