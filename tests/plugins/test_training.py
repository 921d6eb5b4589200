"""What the workloads compute: loss, evaluation, weights from the seed, and every precision."""

from __future__ import annotations

import math

import pytest
import torch
from ampd_bytegpt.model import ByteTransformer
from ampd_bytegpt.spec import Options
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.plugins.jobs import NAMES, Both, built, state_of

CLASSES = {"bytegpt": 256, "digits": 10}


def evaluated(workload: Both) -> dict[str, float]:
    """The figures, taken as the daemon takes them."""
    workload.model.eval()
    with torch.no_grad():
        figures = dict(workload.evaluate())
    workload.model.train()
    return figures


def train(workload: Both, windows: int) -> None:
    """A plain loop in float32."""
    optimizer = torch.optim.AdamW(workload.model.parameters(), lr=3e-3)
    for _number, window in zip(range(windows), workload.windows(0, 0), strict=False):
        optimizer.zero_grad()
        for micro_batch in window:
            workload.loss(micro_batch).backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_model_knows_nothing(name: str) -> None:
    """The first loss is a scalar, about that of a uniform guess."""
    workload = built(name)

    loss = workload.loss(next(workload.windows(0, 0))[0])

    assert loss.shape == ()
    assert loss.item() == pytest.approx(math.log(CLASSES[name]), abs=0.2)


def test_the_loss_is_the_mean_over_samples() -> None:
    """Two halves of a micro-batch average to the whole, so that accumulation means what it says."""
    workload = built("bytegpt", size=8, accumulate=1)
    halves = built("bytegpt", size=4, accumulate=2)

    whole = workload.loss(next(workload.windows(0, 0))[0])
    parts = [halves.loss(micro_batch) for micro_batch in next(halves.windows(0, 0))]

    assert whole.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_gives_the_weights(name: str) -> None:
    """The same seed gives the same weights whatever torch's generator was; another seed gives others."""
    first = state_of(built(name, seed=3))
    torch.rand(5)
    again, other = state_of(built(name, seed=3)), state_of(built(name, seed=4))

    weights = [key for key in first if key != "generator"]
    assert all(torch.equal(first[key], again[key]) for key in weights)
    assert not all(torch.equal(first[key], other[key]) for key in weights)


@pytest.mark.parametrize("name", NAMES)
def test_building_leaves_the_generator_alone(name: str) -> None:
    """What the job draws later does not depend on how a workload sets up its weights."""
    before = torch.get_rng_state()

    built(name)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_evaluating_is_deterministic_and_leaves_no_trace(name: str) -> None:
    """Two evaluations agree, and neither weights, buffers nor the generator move, with dropout on."""
    workload = built(name, dropout=0.5)
    before = state_of(workload)

    first, second = evaluated(workload), evaluated(workload)

    assert first == second
    assert all(torch.equal(tensor, before[key]) for key, tensor in state_of(workload).items())


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_validation_loss(name: str) -> None:
    """Sixty windows of a tiny model are enough to tell."""
    workload = built(name, size=16)
    before = evaluated(workload)["loss"]

    train(workload, 60)

    assert evaluated(workload)["loss"] < before - 0.3


def test_digits_are_recognised_after_an_epoch() -> None:
    """Accuracy is a share of the held-out images that were named right: by chance it would be 0.1."""
    workload = built("digits", channels=8, size=16)
    chance = evaluated(workload)["accuracy"]

    train(workload, workload.windows_per_epoch)

    assert chance < 0.3
    assert 0.6 < evaluated(workload)["accuracy"] <= 1.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_agrees_with_float32(name: str, dtype: torch.dtype) -> None:
    """Under autocast the loss and every gradient are finite, and the loss is float32's to 1 %."""
    workload = built(name, dropout=0.0)
    train(workload, 5)
    micro_batch = next(workload.windows(0, 0))[0]
    exact = workload.loss(micro_batch).item()

    with torch.autocast("cpu", dtype=dtype):
        loss = workload.loss(micro_batch)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own

    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(exact, rel=0.01)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in workload.model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_does_not_change_its_micro_batch(name: str) -> None:
    """A window may be run twice."""
    workload = built(name)
    micro_batch = next(workload.windows(0, 0))[0]
    before = {key: tensor.clone() for key, tensor in micro_batch.tensors.items()}

    workload.loss(micro_batch)

    assert all(torch.equal(tensor, before[key]) for key, tensor in micro_batch.tensors.items())


def trained_transformer(*, ngram_rows: int) -> ByteTransformer:
    """A transformer whose zero-initialised parts are not zero, so that every part counts."""
    torch.manual_seed(5)
    model = ByteTransformer(Options(context=16, layers=2, width=16, heads=2, ngram_rows=ngram_rows))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 64])
def test_no_position_sees_the_future(dtype: torch.dtype, rows: int) -> None:
    """Another byte at position 9 changes nothing before it, in both kernels of attention."""
    model = trained_transformer(ngram_rows=rows)
    text = torch.arange(16)[None]
    changed = text.clone()
    changed[0, 9] = 200

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        one, other = model(text)[0], model(changed)[0]

    assert torch.equal(one[:9], other[:9])
    assert not torch.equal(one[9:], other[9:])


def test_the_written_out_attention_is_the_fused_one() -> None:
    """bfloat16 on the CPU takes another path to the same logits as float32, within bfloat16's 8 bits."""
    model = trained_transformer(ngram_rows=0)
    text = torch.arange(16)[None]

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        exact = model(text)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(text)

    assert torch.allclose(low.float(), exact, atol=0.05 * exact.abs().max().item())


def test_pairs_and_triples_inform_the_embedding() -> None:
    """A position's vector depends on the two bytes before it, and on no earlier one."""
    embedding = trained_transformer(ngram_rows=4096).embedding

    with torch.no_grad():
        vectors = [
            embedding(torch.tensor([text]))[0, 3]
            for text in ([1, 2, 3, 4], [9, 2, 3, 4], [1, 9, 3, 4], [1, 2, 9, 4])
        ]

    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    assert not torch.equal(vectors[0], vectors[3])
