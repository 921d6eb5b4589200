"""Settings, presets, live changes and figures of the library face."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import msgspec
import pytest

import ampd
from ampd import AMPConfig, OptimizationLevel, PerformanceConfig, create_performance_optimizer
from ampd.core import messages as m
from ampd.core.change import PRESETS, change
from ampd.core.ledger import Ledger, WindowRecord
from ampd.core.precision import Capability, Precision
from ampd.errors import ConfigError
from ampd.optimizer.pairs import Pairs
from ampd.optimizer.performance import stats
from ampd.optimizer.reports import log
from ampd.optimizer.settings import job_of
from tests.face import loops


def test_importing_ampd_loads_no_torch() -> None:
    """Nor does making a configuration; the engine comes with the first optimizer."""
    code = (
        "import sys, ampd; ampd.AMPConfig(dtype='float16'); ampd.PerformanceConfig(level=ampd.OptimizationLevel.ULTRA);"
        "assert 'torch' not in sys.modules; ampd.create_performance_optimizer; assert 'torch' in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_ampd_has_what_it_says() -> None:
    """Every name that it offers can be had; any other is an AttributeError."""
    assert [name for name in ampd.__all__ if getattr(ampd, name) is None] == []
    assert set(ampd.__all__) <= set(dir(ampd))
    with pytest.raises(AttributeError, match="module 'ampd' has no attribute 'nonsense'"):
        ampd.nonsense  # noqa: B018  # that it is not there is the point


def test_by_default_it_is_float16_with_loss_scaling() -> None:
    """What the documentation promises of a plain `PerformanceConfig()`."""
    amp = create_performance_optimizer().get_optimization_status()["amp"]

    assert (amp["enabled"], amp["dtype"]) == (True, "float16")
    assert amp["scale_loss"] and amp["enable_gradient_scaling"] and amp["enable_fallback_to_fp32"]


@pytest.mark.parametrize("level", list(OptimizationLevel))
def test_levels_are_the_presets(level: OptimizationLevel) -> None:
    """The same names and values as `ampctl preset` has."""
    amp = create_performance_optimizer(PerformanceConfig(level=level)).get_optimization_status()["amp"]

    assert {f"amp.{name}": value for name, value in amp.items()}.items() >= PRESETS[level].items()
    assert set(OptimizationLevel) == set(PRESETS)


def test_an_explicit_configuration_beats_the_level() -> None:
    """The level is not even mixed in: what was written is what holds."""
    config = PerformanceConfig(level=OptimizationLevel.BASIC, amp_config=AMPConfig(dtype="bfloat16"))

    status = create_performance_optimizer(config).get_optimization_status()
    assert (status["amp"]["enabled"], status["amp"]["dtype"]) == (True, "bfloat16")


def test_the_basic_level_trains_in_float32() -> None:
    """AMP off is the plain loop, still guarded."""
    subject = create_performance_optimizer(PerformanceConfig(level=OptimizationLevel.BASIC))
    trained = loops.model()

    (result,) = loops.train(subject, trained, loops.ADAMW(trained), loops.batches(1))

    assert (result["precision"], result["scale"]) == ("float32", None)
    assert subject.get_amp_stats()["amp_usage_ratio"] == 0.0


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "dtype": ({"amp_config": AMPConfig(dtype="fp16")}, "amp.dtype", "expected one of auto, float16"),  # type: ignore[arg-type]  # the point
    "bounds": ({"amp_config": AMPConfig(backoff_factor=2.0)}, "amp.backoff_factor", "< 1"),
    "together": ({"amp_config": AMPConfig(min_scale=8.0, max_scale=4.0)}, "amp.min_scale", "above amp.max_scale"),
    "processes": ({"amp_config": AMPConfig(sync_batch_norm=True)}, "amp.sync_batch_norm", "more than one process"),
    "late": ({"amp_config": AMPConfig(replay="adaptive")}, "amp.replay", "returns the verdict of this very step"),
    "quarantine": ({"amp_config": AMPConfig(on_bad_window="quarantine")}, "amp.on_bad_window", "no job directory"),
    "hold": ({"amp_config": AMPConfig(on_fallback_limit="pause")}, "amp.on_fallback_limit", "holds nobody"),
    "type": ({"amp_config": {"dtype": "float16"}}, "amp_config", "is a dict, expected an AMPConfig"),
    "level": ({"level": "turbo"}, "level", "turbo"),
    "steps": ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps", ">= 1"),
    "norm": ({"max_grad_norm": -1.0}, "max_grad_norm", "> 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused_with_their_field(name: str) -> None:
    """When the optimizer is made, not at the thousandth step."""
    fields, field, reason = WRONG[name]

    with pytest.raises(ConfigError, match=reason) as refused:
        create_performance_optimizer(PerformanceConfig(**fields))
    assert refused.value.field == field


def test_what_is_no_configuration_is_refused() -> None:
    """A dict looks like one."""
    with pytest.raises(ConfigError, match="is a dict, expected a PerformanceConfig"):
        create_performance_optimizer({"level": "basic"})  # type: ignore[arg-type]  # the point


def test_a_change_takes_effect_at_the_next_step() -> None:
    """And float16 finds its parked scale again after a while in bfloat16."""
    subject, trained = loops.face(loops.float16(growth_interval=2)), loops.model()
    optimizer = loops.ADAMW(trained)
    results = loops.train(subject, trained, optimizer, loops.batches(2))
    for dtype in ("bfloat16", "float16"):
        subject.update_amp_config(msgspec.structs.replace(loops.float16(growth_interval=2), dtype=dtype))
        results += loops.train(subject, trained, optimizer, loops.batches(1))

    assert [r["precision"] for r in results] == ["float16", "float16", "bfloat16", "float16"]
    assert [r["scale"] for r in results] == [128.0, 128.0, None, 256.0]
    assert subject.get_optimization_status()["revision"] == 3


def test_a_change_before_the_first_step_holds_from_it() -> None:
    """There is no model yet to choose a precision for."""
    subject, trained = loops.face(), loops.model()
    subject.update_amp_config(AMPConfig(dtype="bfloat16"))

    (result,) = loops.train(subject, trained, loops.ADAMW(trained), loops.batches(1))

    assert result["precision"] == "bfloat16"


@pytest.mark.parametrize(
    ("amp", "reason"),
    [
        (AMPConfig(dtype="float32", init_scale=2.0), "amp.init_scale 65536 -> 2 cannot be changed while steps are run"),
        (AMPConfig(dtype="int8"), "amp.dtype = 'int8'"),  # type: ignore[arg-type]  # the point
        (AMPConfig(dtype="float32", on_bad_window="rollback"), "has no checkpoints"),
    ],
    ids=["fixed", "wrong", "unfit"],
)  # fmt: skip
def test_a_change_that_cannot_be_made_changes_nothing(amp: AMPConfig, reason: str) -> None:
    """It raises, with the field, and what held goes on holding."""
    subject = loops.face()
    before = subject.get_optimization_status()

    with pytest.raises(ConfigError, match=reason) as refused:
        subject.update_amp_config(amp)

    assert refused.value.field.startswith("amp.")
    assert subject.get_optimization_status() == before


def test_a_change_that_one_pair_cannot_make_is_made_by_none() -> None:
    """A precision that the device of one only emulates, under `require_native`."""
    pairs = Pairs(job_of(PerformanceConfig(amp_config=AMPConfig(dtype="float32"))), log)
    models = [loops.model(), loops.model()]
    optimizers = [loops.ADAMW(model) for model in models]
    both = [pairs.turn_to(*pair) for pair in zip(models, optimizers, strict=True)]
    both[0].trainer.capability = Capability(device="new", native=(Precision.FLOAT16,))
    both[1].trainer.capability = Capability(device="old", native=(), emulated=(Precision.FLOAT16,))

    with pytest.raises(ConfigError, match="old only emulates it"):
        pairs.configure(change(pairs.config, {"amp.dtype": "float16", "amp.require_native": True}))
    assert [pair.trainer.precision for pair in both] == ["float32", "float32"]
    assert pairs.config.amp.dtype == "float32"


def test_the_keys_of_the_loop_are_not_ours() -> None:
    """A change of what the program's own optimizer holds would do nothing, so it is refused."""
    pairs = Pairs(job_of(PerformanceConfig()), log)

    with pytest.raises(ConfigError, match=r"optim\.lr belongs to the loop that the training runs in"):
        pairs.configure(change(pairs.config, {"optim.lr": 0.5}))


def test_auto_chooses_by_a_probe_of_the_model() -> None:
    """What the device does natively, with the reason in the status."""
    subject, trained = loops.face(AMPConfig()), loops.model()

    (result,) = loops.train(subject, trained, loops.ADAMW(trained), loops.batches(1))

    status = subject.get_optimization_status()
    assert result["precision"] == status["precision"]
    assert "CPU" in status["reason"]


def test_figures_are_those_of_the_document() -> None:
    """Ten names, from the ledger; None where there is nothing to say."""
    figures = loops.face().get_amp_stats()

    assert figures == {
        "total_steps": 0, "amp_steps": 0, "fp32_fallbacks": 0, "amp_usage_ratio": 0.0, "fp32_fallback_ratio": 0.0,
        "avg_scaler_scale": None, "min_scaler_scale": None, "max_scaler_scale": None,
        "total_memory_saved_mb": None, "avg_memory_saved_mb": None,
    }  # fmt: skip


def test_figures_of_a_run() -> None:
    """Usage and fallbacks are shares of all steps; the scale is that of the steps that had one."""
    subject, trained = loops.face(loops.float16()), loops.model()
    data = loops.batches(4)
    data[1] = loops.overflowing(data[1])

    loops.train(subject, trained, loops.ADAMW(trained), data)

    figures = subject.get_amp_stats()
    assert (figures["total_steps"], figures["amp_steps"], figures["fp32_fallbacks"]) == (4, 3, 1)
    assert (figures["amp_usage_ratio"], figures["fp32_fallback_ratio"]) == (0.75, 0.25)
    assert (figures["avg_scaler_scale"], figures["min_scaler_scale"], figures["max_scaler_scale"]) == (
        96,
        64,
        128,
    )


def test_memory_saved_is_what_was_measured() -> None:
    """A model whose activations outweigh its weights keeps less in float16; nothing is assumed."""
    subject, trained = loops.face(loops.float16()), loops.model()

    loops.train(subject, trained, loops.ADAMW(trained), loops.batches(2, size=512))

    figures = subject.get_amp_stats()
    assert figures["avg_memory_saved_mb"] is not None and figures["total_memory_saved_mb"] is not None
    assert 0 < figures["avg_memory_saved_mb"] < 512 * 64 * 4 / 1e6
    assert figures["total_memory_saved_mb"] == pytest.approx(2 * figures["avg_memory_saved_mb"])


def test_figures_begin_anew_after_a_reset() -> None:
    """The scale goes on where it was; only what was counted is gone."""
    subject, trained = loops.face(loops.float16()), loops.model()
    optimizer = loops.ADAMW(trained)
    loops.train(subject, trained, optimizer, [loops.overflowing(loops.batches(1)[0])])

    subject.reset_amp_stats()

    assert (subject.get_amp_stats()["total_steps"], subject.get_amp_stats()["fp32_fallbacks"]) == (0, 0)
    (result,) = loops.train(subject, trained, optimizer, loops.batches(1))
    assert result["scale"] == 64.0


def test_figures_take_bounded_memory() -> None:
    """A ledger of ten thousand windows is no larger than one of ten."""
    sizes = []
    for count in (10, 10_000):
        ledger = Ledger()
        for number in range(count):
            low = Precision.FLOAT16
            ledger.record(WindowRecord(window=number, epoch=0, loss=1.0, precision=low, first=low, lr=0.1, grad_norm=1.0))  # fmt: skip
            ledger.observe(1.0, float(number), low)
        sizes.append(len(msgspec.json.encode(ledger)))
        assert stats(ledger)["total_steps"] == count

    assert sizes[1] < sizes[0] + 100


def test_the_limit_of_fallbacks_counts_since_the_last_reset(caplog: pytest.LogCaptureFixture) -> None:
    """A loop that resets its figures each epoch has the limit per epoch; passing it is said once in each."""
    subject = loops.face(loops.float16(max_fp32_fallbacks=1))
    trained = loops.model()
    optimizer = loops.ADAMW(trained)
    bad = [loops.overflowing(batch) for batch in loops.batches(3)]

    with caplog.at_level(logging.WARNING, "ampd"):
        for _epoch in range(2):
            loops.train(subject, trained, optimizer, bad)
            subject.reset_amp_stats()

    assert sum("fallbacks.reached_limit" in line for line in caplog.messages) == 2


def test_raise_dtype_at_the_limit_is_a_change() -> None:
    """From the next step on, windows are first attempted wider."""
    subject = loops.face(loops.float16(max_fp32_fallbacks=0, on_fallback_limit="raise_dtype"))
    trained = loops.model()

    results = loops.train(
        subject, trained, loops.ADAMW(trained), [loops.overflowing(b) for b in loops.batches(2)]
    )

    assert [r["cause"] for r in results] == ["forward", None]
    assert subject.get_optimization_status()["revision"] == 2


def test_trouble_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    """Under the name "ampd", one line for each fallback."""
    subject, trained = loops.face(loops.float16()), loops.model()

    with caplog.at_level(logging.WARNING, "ampd"):
        loops.train(subject, trained, loops.ADAMW(trained), [loops.overflowing(loops.batches(1)[0])])

    (line,) = [line for line in caplog.messages if "window.fell_back" in line]
    assert "'cause': 'forward'" in line


def test_a_change_to_an_emulated_precision_tells_its_price() -> None:
    """With the measured factor, once, however often one goes back and forth."""
    said: list[m.Report] = []
    pairs = Pairs(job_of(PerformanceConfig(amp_config=AMPConfig(dtype="float32"))), said.append)
    model = loops.model()
    optimizer = loops.ADAMW(model)  # a pair lives as long as its optimizer
    pair = pairs.turn_to(model, optimizer)
    pair.trainer.capability = Capability(device="old", native=(), emulated=(Precision.FLOAT16,))

    for dtype in ("float16", "float32", "float16"):
        pairs.configure(change(pairs.config, {"amp.dtype": dtype}))

    assert [report.topic for report in said if isinstance(report, m.Warned)] == ["emulated-dtype"]
