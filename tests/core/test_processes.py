"""How many processes train: what the job file may say, and what means something only between several."""

from __future__ import annotations

import pytest

from ampd.core import change
from ampd.errors import ConfigError
from tests.core.bench import job_config


def test_a_job_has_one_process_unless_it_says_more() -> None:
    """Job files of one process stay what they were."""
    assert job_config().distributed.processes == 1


@pytest.mark.parametrize("processes", [1, 2, 32, "auto", "env"])
def test_processes_are_a_number_or_auto(processes: int | str) -> None:
    """As many as named, or one for each GPU."""
    assert job_config(distributed__processes=processes).distributed.processes == processes


@pytest.mark.parametrize("processes", [0, -1, 1.5, "all"])
def test_any_other_number_is_refused_by_name(processes: object) -> None:
    """The key is named in the error."""
    with pytest.raises(ConfigError) as caught:
        job_config(distributed__processes=processes)

    assert caught.value.field == "distributed.processes"


def test_what_is_not_built_is_no_key() -> None:
    """A key that would do nothing is refused as any unknown one."""
    with pytest.raises(ConfigError, match="backend"):
        change.read_job(
            '[job]\nname="a"\ndirectory="a"\nwindows=1\n[workload]\nname="w"\n[distributed]\nbackend="gloo"'
        )


def test_weights_are_shared_by_several() -> None:
    """One process has nobody to share weights with; how they are shared is fixed while the job runs."""
    with pytest.raises(ConfigError, match="needs more than one process to share the weights") as caught:
        job_config(distributed__strategy="fsdp2")
    assert caught.value.field == "distributed.strategy"

    config = job_config(distributed__processes=2, distributed__strategy="fsdp2")
    with pytest.raises(ConfigError, match="fixed while the job runs"):
        change.change(config, {"distributed.strategy": "ddp"})


@pytest.mark.parametrize(
    ("key", "value"), [("sync_batch_norm", True), ("enable_distributed_accumulation", False)]
)
def test_keys_between_processes_need_several(key: str, value: bool) -> None:
    """Refused with one process, taken with two."""
    with pytest.raises(ConfigError, match="more than one process"):
        job_config(**{f"amp__{key}": value})

    config = job_config(distributed__processes=2, **{f"amp__{key}": value})
    assert getattr(config.amp, key) is value


@pytest.mark.parametrize("processes", [1, 2])
def test_judging_together_cannot_be_off(processes: int) -> None:
    """Ranks that judge a window differently would never meet again."""
    with pytest.raises(ConfigError, match="judge the same window differently"):
        job_config(amp__sync_across_gpus=False, distributed__processes=processes)


def test_every_process_needs_a_sample() -> None:
    """A micro-batch that cannot be shared is refused before anything starts."""
    with pytest.raises(ConfigError) as caught:
        job_config(distributed__processes=4, batch__size=3)

    assert caught.value.field == "batch.size"


def test_the_number_is_fixed_while_the_job_runs() -> None:
    """A group of another size is another start."""
    with pytest.raises(ConfigError, match="fixed while the job runs"):
        change.change(job_config(), {"distributed.processes": 2})


NODES = {"distributed__nodes": 2, "distributed__rendezvous": "gpu1:29400"}


@pytest.mark.parametrize(
    "rendezvous", ["gpu1:29400", "10.0.0.1:1", "[fd00::1]:65535", "job-0.job.default:29400"]
)
def test_nodes_meet_at_a_name_or_an_address(rendezvous: str) -> None:
    """With a port; IPv6 in brackets."""
    config = job_config(distributed__nodes=2, distributed__rendezvous=rendezvous)

    assert config.distributed.is_group


@pytest.mark.parametrize(
    ("keys", "field", "message"),
    [
        ({"nodes": 2}, "rendezvous", "nodes = 2 needs distributed.rendezvous"),
        ({"rendezvous": "gpu1:29400"}, "rendezvous", "for several nodes, and the job has one"),
        ({"node": 0}, "node", "for several nodes, and the job has one"),
        ({"nodes": 2, "rendezvous": "gpu1"}, "rendezvous", "'gpu1'"),
        ({"nodes": 2, "rendezvous": "gpu1:0"}, "rendezvous", "expected a port from 1 to 65535"),
        ({"nodes": 2, "rendezvous": "gpu1:70000"}, "rendezvous", "expected a port from 1 to 65535"),
        ({"nodes": 2, "rendezvous": "gpu1:29400", "node": 2}, "node", "2 nodes has 0 to 1"),
        ({"nodes": 0}, "nodes", "nodes = 0"),
        (
            {"nodes": 2, "rendezvous": "gpu1:29400", "processes": "env"},
            "nodes",
            "joins processes that are there",
        ),
        ({"rendezvous": "gpu1:29400", "processes": "env"}, "rendezvous", "the job has one"),
    ],
)
def test_nodes_that_cannot_meet_are_refused(keys: dict[str, object], field: str, message: str) -> None:
    """Before anything is started, by the key that is wrong."""
    with pytest.raises(ConfigError, match=message) as caught:
        job_config(**{f"distributed__{name}": value for name, value in keys.items()})

    assert caught.value.field == f"distributed.{field}"


def test_every_process_of_every_node_needs_a_sample() -> None:
    """Two nodes of four processes share a micro-batch of eight."""
    with pytest.raises(ConfigError, match="processes = 4 on each of 2 nodes"):
        job_config(**NODES, distributed__processes=4, batch__size=7)

    assert job_config(**NODES, distributed__processes=4, batch__size=8).batch.size == 8


def test_keys_between_processes_may_be_set_between_nodes() -> None:
    """One process on each of two nodes is more than one process."""
    assert job_config(**NODES, amp__sync_batch_norm=True).amp.sync_batch_norm


def test_processes_of_others_are_not_started_again_for_a_rollback() -> None:
    """Going back to a checkpoint takes new workers on all of them at once."""
    with pytest.raises(ConfigError, match="starts all processes again") as caught:
        job_config(distributed__processes="env", amp__on_bad_window="rollback")

    assert caught.value.field == "amp.on_bad_window"
