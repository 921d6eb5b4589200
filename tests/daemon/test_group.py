"""What is started for several processes: torchrun's command line, and how many ranks "auto" means."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ampd import child, group
from ampd.control.lifeline import PulsePage
from ampd.core.group import DistributedSection
from ampd.job_directory import JobDirectory

WORDS = ["--link", "ipc:///tmp/link", "--processes", "4", "--max-restarts", "3"]
MEETING = [
    "--nodes",
    "2",
    "--rendezvous",
    "gpu1:29400",
    "--job",
    "toy",
    "--address",
    "10.0.0.2",
    "--interface",
    "eth1",
]


def command(*more: str) -> list[str]:
    """The words of torchrun, for the agent 10 of the supervisor 9."""
    return group.command(group.arguments([*WORDS, *more]), agent=10, supervisor=9)


def test_torchrun_is_told_the_ranks_and_the_budget() -> None:
    """As many processes and restarts as the job file says, on a rendezvous of this node."""
    words = command()

    assert words[:4] == [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    assert words[words.index("--nproc-per-node") + 1] == "4"
    assert words[words.index("--max-restarts") + 1] == "3"


def test_a_rank_knows_whom_it_lives_with() -> None:
    """The link, the agent that it dies with and the supervisor that it saves for."""
    words = command()

    assert words[words.index("ampd.worker") :] == [
        "ampd.worker", "--link", "ipc:///tmp/link", "--agent", "10", "--supervisor", "9",
    ]  # fmt: skip


def test_it_becomes_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """exec keeps the pid, which is what ranks are told as their agent's."""
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _path, words: became.append(words))
    monkeypatch.setattr(os, "environ", {})

    group.main(WORDS)

    assert became == [group.command(group.arguments(WORDS), os.getpid(), os.getppid())]
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_the_network_may_be_chosen_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator has set stays."""
    monkeypatch.setattr(os, "execv", lambda *_words: None)
    monkeypatch.setattr(os, "environ", {"GLOO_SOCKET_IFNAME": "eth1"})

    group.main(WORDS)

    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth1"


def test_nodes_meet_where_the_job_file_says() -> None:
    """Under the job's name, each with the address that the others know it by."""
    words = command(*MEETING)

    assert words[words.index("--nnodes") :][:9] == [
        "--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "gpu1:29400", "--rdzv-id", "toy", "--rdzv-conf",
    ]  # fmt: skip
    assert words[words.index("--local-addr") + 1] == "10.0.0.2"


def test_the_leader_hosts_the_rendezvous_and_nobody_else() -> None:
    """torchrun would guess it from names; and the ranks of a node that follows know that they do."""
    leads, follows = command(*MEETING), command(*MEETING, "--follows")

    assert ("is_host=1" in leads, "is_host=0" in follows) == (True, True)
    assert ("--follows" in leads, follows[-1]) == (False, "--follows")


def test_restarts_of_several_nodes_are_counted_by_their_leader() -> None:
    """Each torchrun would count its own, and none knows of checkpoints."""
    words = command(*MEETING)

    assert int(words[words.index("--max-restarts") + 1]) > 10_000


def test_nodes_talk_on_the_interface_that_faces_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And have torchrun make a store for each round, since they count restarts differently."""
    monkeypatch.setattr(os, "execv", lambda *_words: None)
    monkeypatch.setattr(os, "environ", {})

    group.main([*WORDS, *MEETING])

    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth1"
    assert os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"


@pytest.mark.parametrize(
    ("present", "visible", "processes"),
    [(0, None, 1), (1, None, 1), (4, None, 4), (4, "0,2", 2), (4, "", 1), (1, "0,1,2", 1)],
)
def test_auto_is_one_process_for_each_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: int, visible: str | None, processes: int
) -> None:
    """Those of the driver that CUDA_VISIBLE_DEVICES leaves; one where there is none."""
    for number in range(present):
        (tmp_path / f"0000:{number:02}:00.0").mkdir()
    monkeypatch.setattr(child, "_GPUS", tmp_path)
    monkeypatch.setattr(os, "environ", {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})

    assert child.processes_of(DistributedSection(processes="auto")) == processes


def test_ranks_hold_the_job_directory_too(home: Path) -> None:
    """torchrun closes what it could pass on except standard streams: the lock comes as the input of each."""
    grandchild = "import os, subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    is_lock = f"import os; assert os.path.samestat(os.fstat(0), os.stat({str(home / 'lock')!r}))"

    async def run() -> int:
        directory = JobDirectory.take(home, patience_seconds=1.0, say=print)
        started = await child.Child.start(
            [sys.executable, "-c", grandchild, is_lock], directory, has_ranks=True
        )
        returncode = await started.wait()
        directory.close()
        return returncode

    assert asyncio.run(run()) == 0


def test_a_rank_whose_agent_is_gone_does_not_begin(home: Path) -> None:
    """It would load torch and wait for a rendezvous that nobody holds."""
    PulsePage.make(home).close()
    words = ["--link", f"ipc://{home}/link.sock", "--agent", "1", "--supervisor", str(os.getpid())]
    ran = subprocess.run([sys.executable, "-m", "ampd.worker", *words], check=False, timeout=30)

    assert ran.returncode == -9
