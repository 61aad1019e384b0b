"""Adam and what surrounds it: step size, clipping, averaging of weights. Twin: jax_vae/optimizers.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.optim.adam import adam as fused_adam

from vae_common.config import Config

from .device import Array, execution_for
from .engines import whole


def adam(model: torch.nn.Module, config: Config) -> _Adam:
    """Adam with the config's settings, before its first step."""
    return _Adam(model, config)


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


class _Adam:
    """Adam with the config's settings; its state holds `step`, `exp_avg` and `exp_avg_sq`, made now and not later.

    By PyTorch's fused function: its class imports PyTorch's compiler, for a second, and loses time at each step. Where
    a compiled step is captured Adam is compiled, too: the fused kernel leaves a GPU idle, with a block for each 65,536
    numbers.
    """

    def __init__(self, model: torch.nn.Module, config: Config):
        self.config = config
        execution = execution_for(config)
        self.compiled = execution == "compiled graph"
        self.in_graph = execution in ("graph", "compiled graph")  # a CUDA graph needs count and rate on the device
        self.parameters: list[Array] = list(model.parameters())
        self.state: dict[Array, dict[str, Array]] = {
            parameter: {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.full_like(parameter, config.optimizer.second_moment_start, requires_grad=False),
            }
            for parameter in self.parameters
        }

    @torch.no_grad()
    def step(self, gradients: Sequence[Array]) -> None:
        """One update, in place, by the parameters' gradients, which are contiguous."""
        settings, held = self.config.optimizer, [self.state[parameter] for parameter in self.parameters]
        first, second, steps = ([of[name] for of in held] for name in ("exp_avg", "exp_avg_sq", "step"))
        rate = learning_rate(self.config, steps[0])
        if self.compiled:
            betas = settings.beta1, settings.beta2
            _compiled()(self.parameters, list(gradients), (first, second), steps, rate, betas, settings.eps)
            return
        fused_adam(
            self.parameters,
            list(gradients),
            first,
            second,
            [],
            steps,
            fused=True,
            capturable=self.in_graph,
            amsgrad=False,
            beta1=settings.beta1,
            beta2=settings.beta2,
            lr=rate if self.in_graph else float(rate),
            weight_decay=0.0,
            eps=settings.eps,
            maximize=False,
        )


@cache
def _compiled() -> Any:
    torch._dynamo.config.recompile_limit = 64  # as of steps
    return torch.compile(_update, fullgraph=True, dynamic=False)


def _update(parameters, gradients, moments, steps, rate, betas, eps):
    """Adam's update, in place, as the fused kernel computes it: corrections in float64, then number by number.

    (PyTorch's own for the compiler has the corrections in float32.)
    """
    (first, second), (beta1, beta2) = moments, betas
    torch._foreach_add_(steps, 1)
    torch._foreach_lerp_(first, gradients, 1 - beta1)
    torch._foreach_mul_(second, beta2)
    torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
    count, dtype = steps[0].double(), parameters[0].dtype
    size, scale = rate / (1 - beta1**count), (1 - beta2**count).sqrt()
    denominators = torch._foreach_add(torch._foreach_div(torch._foreach_sqrt(second), scale.to(dtype)), eps)
    changes = torch._foreach_div(torch._foreach_mul(first, size.to(dtype)), denominators)
    torch._foreach_sub_(parameters, changes)
