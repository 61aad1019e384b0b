"""Adam and what surrounds it: step size, clipping, averaging of weights. Twin: jax_vae/optimizers.py."""

from __future__ import annotations

import math
from typing import Any

import torch

from vae_common.config import Config

from .device import Array, execution_for
from .engines import whole


def adam(model: torch.nn.Module, config: Config) -> torch.optim.Optimizer:
    """Adam with the config's settings; its state holds `step`, `exp_avg` and `exp_avg_sq`, made now and not later."""
    settings = config.optimizer
    optimizer = torch.optim.Adam(
        model.parameters(),
        config.training.learning_rate,
        (settings.beta1, settings.beta2),
        settings.eps,
        fused=True,
        capturable=execution_for(config) == "graph",  # a CUDA graph needs its step count on the device
    )
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.full_like(parameter, settings.second_moment_start, requires_grad=False),
        }
    return optimizer


def learning_rate(config: Config, step: Array) -> Any:
    """The step size of the update after that many (a scalar tensor): a number if it is constant, else a tensor."""
    settings = config.optimizer
    rate: Any = config.training.learning_rate
    if settings.schedule == "constant" and not settings.warmup_steps:
        return rate
    step = step.to(getattr(torch, config.training.dtype))
    if settings.schedule == "cosine":
        rate = rate * (1 + torch.cos(math.pi * torch.clip(step / settings.decay_steps, max=1))) / 2
    if settings.schedule == "exponential":
        rate = rate * settings.decay_rate ** (step / settings.decay_steps)
    if settings.warmup_steps:
        rate = rate * torch.clip((step + 1) / settings.warmup_steps, max=1)
    return rate


def clipped(config: Config, gradients: Any) -> Any:
    """The gradients, scaled down where all of them together are longer than `clip_norm`."""
    most = config.optimizer.clip_norm
    if not most:
        return gradients
    norm = torch.stack([whole((leaf**2).sum()) for leaf in gradients.values()]).sum().sqrt()
    factor = torch.where(norm > most, most / norm, 1)
    return {name: leaf * factor for name, leaf in gradients.items()}


@torch.no_grad()
def followed(model: Any, changes: Any) -> Any:
    """The model after these changes of what follows the batch, in place."""
    for name, change in changes.items():
        model.get_parameter(name).sub_(change)
    return model


@torch.no_grad()
def averaged(config: Config, average: Any, model: Any) -> Any:
    """The moving average of the weights after an update, in place; it starts at the initial ones."""
    decay = config.optimizer.average
    for old, new in zip(average.parameters(), model.parameters()):
        old.mul_(decay).add_((1 - decay) * new)
    return average
