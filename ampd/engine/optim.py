"""The daemon's optimizer, from the job file: fused by default, so that the guard can gate it on the device."""

from __future__ import annotations

from torch import nn, optim

from ampd.core.config import OptimSection


def build_optimizer(section: OptimSection, model: nn.Module) -> optim.Optimizer:
    """AdamW or SGD over the model's trainable parameters, in two groups: matrices decay, vectors and scalars do not."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": section.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if section.name == "sgd":
        return optim.SGD(groups, lr=section.lr, momentum=section.momentum, fused=section.fused)
    return optim.AdamW(groups, lr=section.lr, betas=section.betas, eps=section.eps, fused=section.fused)


def set_rates(optimizer: optim.Optimizer, lr: float, section: OptimSection) -> None:
    """Put the window's rate and the live weight decay into every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if group["weight_decay"]:
            group["weight_decay"] = section.weight_decay
