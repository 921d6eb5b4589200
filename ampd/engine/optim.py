"""The daemon's optimizer, from the job file: fused by default, so that the guard can gate it on the device."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn, optim

from ampd.core.config import OptimSection


def build_optimizer(section: OptimSection, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """AdamW or SGD over those that are trainable, in two groups: matrices decay, vectors and scalars do not.

    The groups say which they are (`decays`), since a live weight decay of 0 must not make them alike for good.
    """
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {
            "params": [p for p in trainable if p.ndim >= 2],
            "weight_decay": section.weight_decay,
            "decays": True,
        },
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0, "decays": False},
    ]
    groups = [group for group in groups if group["params"]]
    if section.name == "sgd":
        return optim.SGD(groups, lr=section.lr, momentum=section.momentum, fused=section.fused)
    return optim.AdamW(groups, lr=section.lr, betas=section.betas, eps=section.eps, fused=section.fused)


def can_be_gated(optimizer: optim.Optimizer) -> bool:
    """Whether a flag on the device can keep this optimizer from stepping: torch's fused AdamW, Adam, SGD, Adagrad."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def gated_step(optimizer: optim.Optimizer, found: Tensor) -> None:
    """A step that does nothing where `found` ((1,) float32, exactly 0 or 1) is 1; no host sync.

    The fused kernels take back their step counter by the flag's value, so 2 would move it backwards.
    """
    optimizer.found_inf, optimizer.grad_scale = found.reshape(()), None  # type: ignore[attr-defined]  # torch's own AMP protocol
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf, optimizer.grad_scale  # type: ignore[attr-defined]


def set_rates(optimizer: optim.Optimizer, lr: float | Tensor, section: OptimSection) -> None:
    """Put the window's rate and the live weight decay into every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["decays"]:
            group["weight_decay"] = section.weight_decay
