"""One window at a time: attempt, commit, record. The only place that calls `optimizer.step()`.

A trainer knows nothing of orders, files or links; `Boundary` decides what happens between windows and `Loop` drives
both. Its whole state goes through `state_dict`, so that a trainer that loads it continues bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from ampd.core.config import JobConfig
from ampd.core.ledger import Ledger, WindowRecord
from ampd.core.precision import Capability, Choice, Precision, choose
from ampd.core.schedule import learning_rate
from ampd.engine.assembly import Parts
from ampd.engine.execute import clear_gradients
from ampd.engine.optim import set_rates
from ampd.engine.pipeline import Configurable, Resettable, Stateful
from ampd.engine.stages.autocast import forward_context
from ampd.engine.window import Attempt, Outcome, Verdict, Window
from ampd.engine.workload import Capturing, Evaluating
from ampd.errors import PipelineError


class Trainer:
    """Trains `parts` under a configuration that may change between windows; for one thread."""

    def __init__(self, config: JobConfig, parts: Parts, capability: Capability, total_windows: int) -> None:
        self.config = config
        self.parts = parts
        self.capability = capability
        self.total_windows = total_windows
        self.choice = self.choose(config)

    @property
    def ledger(self) -> Ledger:
        """The job's ledger; the trainer is its only writer."""
        return self.parts.ledger

    @property
    def precision(self) -> Precision:
        """What the next window is first attempted at."""
        return self.choice.precision

    @property
    def next_lr(self) -> float:
        """The learning rate of the next update."""
        return learning_rate(self.config.optim, self.ledger.job.applied, self.total_windows)

    def choose(self, config: JobConfig) -> Choice:
        """The precision that `config` means on this device; raises ConfigError where it is refused."""
        amp = config.amp
        return choose(amp.dtype, self.capability, require_native=amp.require_native, enabled=amp.enabled)

    def configure(self, config: JobConfig) -> None:
        """Take over a configuration between windows; raises ConfigError with nothing changed."""
        choice = self.choose(config)
        self.config, self.choice = config, choice
        for _name, _slot, stage in self.parts.stages:
            if isinstance(stage, Configurable):
                stage.configure(config)

    def reset_scale(self) -> None:
        """Put every stage that can be reset (the loss scale) back to where it began."""
        for _name, _slot, stage in self.parts.stages:
            if isinstance(stage, Resettable):
                stage.reset()

    def step(self, window: Window) -> WindowRecord:
        """Run a window to its end: applied or not, and entered in the ledger. One host sync per attempt."""
        self.parts.injector.enter()
        lr = self.next_lr
        outcome = self.parts.pipeline(Attempt(window=window, precision=self.precision))
        if outcome.verdict is Verdict.FINITE:
            self._commit(lr)
        elif outcome.verdict is not Verdict.NONFINITE:
            raise PipelineError(
                f"window {window.number} came out {outcome.verdict.value}; slot SCALE must judge every attempt"
            )
        record = self._record(outcome, lr)
        self.ledger.record(record)
        return record

    def evaluate(self) -> Mapping[str, float]:
        """The workload's figures on held-out data, at the present precision; leaves no trace in the run."""
        workload = self.parts.workload
        assert isinstance(workload, Evaluating), "the loop asks only workloads that can"
        generators = self.parts.rewind.generators()
        self.parts.model.eval()
        try:
            with torch.no_grad(), forward_context(self.precision, self.parts.device.type)():
                return workload.evaluate()
        finally:
            self.parts.model.train()
            self.parts.rewind.set_generators(generators)

    def state_dict(self) -> dict[str, Any]:
        """Copies on the host of everything that the next window depends on; syncs with the device."""
        parts = self.parts
        optimizer = parts.optimizer.state_dict()
        state = {
            "model": parts.model.state_dict(),
            "buffers": dict(parts.model.named_buffers()),
            "optimizer": {"state": optimizer["state"], "groups": optimizer["param_groups"]},
            "stages": {
                name: stage.state_dict() for name, _slot, stage in parts.stages if isinstance(stage, Stateful)
            },
            "generators": parts.rewind.generators(),
            "workload": parts.workload.capture() if isinstance(parts.workload, Capturing) else {},
            "injector": parts.injector.state_dict(),
            "ledger": msgspec.to_builtins(parts.ledger),
        }
        copied: dict[str, Any] = _on_host(state)
        return copied

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        parts = self.parts
        parts.model.load_state_dict(state["model"])
        buffers = dict(parts.model.named_buffers())
        for name, saved in state["buffers"].items():
            buffers[name].copy_(saved)
        parts.optimizer.load_state_dict(_optimizer_state(state["optimizer"]))
        for name, _slot, stage in parts.stages:
            if isinstance(stage, Stateful):
                stage.load_state_dict(state["stages"][name])
        if isinstance(parts.workload, Capturing):
            parts.workload.restore(state["workload"])
        parts.injector.load_state_dict(state["injector"])
        _load_ledger(parts.ledger, state["ledger"])
        parts.rewind.set_generators(state["generators"])

    def _commit(self, lr: float) -> None:
        set_rates(self.parts.optimizer, lr, self.config.optim)
        self.parts.optimizer.step()
        clear_gradients(self.parts.parameters)

    def _record(self, outcome: Outcome, lr: float) -> WindowRecord:
        window = outcome.attempt.window
        is_applied = outcome.verdict is Verdict.FINITE
        return WindowRecord(
            window=window.number, epoch=window.epoch, loss=outcome.loss, precision=outcome.attempt.precision,
            first=self.precision, lr=lr, grad_norm=outcome.norm, scale=outcome.scale, replays=outcome.replays,
            skipped=None if is_applied else outcome.cause, clipped=outcome.clipped, samples=window.samples, tokens=window.tokens,
        )  # fmt: skip


def _on_host(node: Any) -> Any:
    """A copy of a state tree whose tensors are on the host and shared with nobody."""
    if isinstance(node, torch.Tensor):
        return node.detach().to("cpu", copy=True).contiguous()
    if isinstance(node, Mapping):
        return {key: _on_host(value) for key, value in node.items()}
    return node


def _optimizer_state(saved: Mapping[str, Any]) -> dict[str, Any]:
    """torch's own form of an optimizer's state: integer keys, tuples where it had tuples."""
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in saved["groups"]]
    return {"state": {int(index): entry for index, entry in saved["state"].items()}, "param_groups": groups}


def _load_ledger(ledger: Ledger, saved: Mapping[str, Any]) -> None:
    loaded = msgspec.convert(saved, Ledger)
    for name in Ledger.__struct_fields__:
        setattr(ledger, name, getattr(loaded, name))
