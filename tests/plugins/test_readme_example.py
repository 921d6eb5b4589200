"""The plugin under "A plugin of your own" in README.md is laid out and run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.tree import ROOT


def blocks(language: str) -> list[str]:
    """The blocks of a language under the heading, in their order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## A plugin of your own\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def install(project: str, site: Path) -> None:
    """What `pip install` leaves of the metadata: name, version, entry points."""
    table = tomllib.loads(project)["project"]
    info = site / f"{table['name']}-{table['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {table['name']}\nVersion: {table['version']}\n"
    )
    groups = table["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in groups]
    (info / "entry_points.txt").write_text("".join(lines))


def test_the_plugin_of_the_readme_trains(tmp_path: Path) -> None:
    """Its files, its job file, `ampd start`: the job completes, and has learned."""
    (project, job), (spec, workload) = blocks("toml"), blocks("python")
    install(project, tmp_path)
    (tmp_path / "adding").mkdir()
    (tmp_path / "adding" / "spec.py").write_text(spec)
    (tmp_path / "adding" / "workload.py").write_text(workload)
    (tmp_path / "job.toml").write_text(job)
    words = ["start", "--config", "job.toml", "--set", "http.listen=127.0.0.1:0", "--set", "optim.lr=0.1"]

    with TemporaryDirectory(prefix="ampd-") as runtime:  # short enough for a socket's path
        ended = subprocess.run(
            [sys.executable, "-m", "ampd.cli.ampd", *words], capture_output=True, text=True, check=False, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT))), "AMPD_RUNTIME_DIR": runtime, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert "300 applied of 300" in ended.stdout
    loss = re.search(r"^loss +(\S+) \(min", ended.stdout, re.MULTILINE)
    assert loss is not None and float(loss.group(1)) < 1.0
