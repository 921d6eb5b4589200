"""What can be trained by a step of ours, looked at before the first: each refusal says why, and what to do instead."""

from __future__ import annotations

import torch
from torch import nn, optim

from ampd.errors import WorkloadError


def device_of(model: nn.Module, optimizer: optim.Optimizer) -> torch.device:
    """The one device of a pair that can be trained; raises WorkloadError where it cannot."""
    _check_model(model)
    _check_optimizer(optimizer)
    return _check_parameters(model, optimizer)


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(model, nn.DataParallel):
        raise WorkloadError(
            "model is wrapped in torch.nn.DataParallel, whose replicas run in threads of their own: autocast's dtype "
            "is per thread and does not reach them, so they would compute in float16 whatever amp.dtype says; "
            "pass model.module, which trains on one device; for several, give it to `ampd start` as a workload with "
            '[distributed] processes = "auto", which is DistributedDataParallel'
        )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        count = torch.distributed.get_world_size()
        if count > 1:
            raise WorkloadError(
                f"this is one of {count} processes of a distributed training, and a step judges its window in one "
                "process alone: they would come to different verdicts and wait for each other for ever"
            )


def _check_optimizer(optimizer: optim.Optimizer) -> None:
    if not isinstance(optimizer, optim.Optimizer):
        raise WorkloadError(f"optimizer is a {type(optimizer).__name__}, expected a torch.optim.Optimizer")
    if isinstance(optimizer, optim.LBFGS):
        raise WorkloadError(
            "optimizer is LBFGS, whose step() runs the model itself, several times; a step of ours runs it before, "
            "and judges it. Use an optimizer whose step() needs no closure"
        )


def _check_parameters(model: nn.Module, optimizer: optim.Optimizer) -> torch.device:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if {id(p) for p in parameters}.isdisjoint(id(p) for p in model.parameters()):
        raise WorkloadError(
            "the optimizer holds no parameter of the model; make it from the same model's parameters()"
        )
    if any(p.dtype is torch.float16 for p in parameters):
        raise WorkloadError(
            "parameters are float16, so updates would be lost to rounding and a fallback could not be wider; keep "
            "them float32 (model.float()): operations run in amp.dtype all the same"
        )
    devices = sorted({str(p.device) for p in parameters})
    if len(devices) > 1:
        raise WorkloadError(
            f"parameters are on {' and '.join(devices)}; a step trains a model that is on one device"
        )
    device: torch.device = parameters[0].device
    return device
