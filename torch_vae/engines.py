"""PyTorch's engines for many processes: DDP, and `fully_shard`. JAX has none: its compiler does that (meshes.py)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.nn.parallel import DistributedDataParallel

from vae_common.config import Config

from . import distributed
from .device import Array

_ENGINE = "_engine"
M = TypeVar("M", bound=torch.nn.Module)


class _Called(torch.nn.Module):
    """Functions of a model as a module's call, which engines want: inside it all parameters are at hand."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self.model, *arguments)


def shard(model: M, config: Config) -> M:
    """The model, its parameters spread over the processes where the config says so."""
    if distributed.devices() > 1 and config.training.sharding == "data+parameters":
        from torch.distributed.fsdp import fully_shard  # who trains alone does not wait for it

        # What is returned are views, in which nothing is written.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
        for block in model.modules():
            if getattr(block, "spread", False):
                fully_shard(block, reshard_after_forward=True)
        called = _Called(model)
        fully_shard(called, reshard_after_forward=True)  # after an evaluation, too
        model.__dict__[_ENGINE] = called  # no submodule of the model, which it holds itself
    return model


def engine(model: torch.nn.Module, config: Config) -> torch.nn.Module | None:
    """What is called with a function of the model and its arguments, and averages the gradients of its result over the
    processes; None where there is one. It is made once for a model."""
    if distributed.devices() == 1:
        return None
    kept = model.__dict__
    if _ENGINE not in kept:
        # Of 1x1 kernels, whose strides say nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view", category=UserWarning)
        unused = bool(config.entry.without_gradient)
        kept[_ENGINE] = DistributedDataParallel(_Called(model), find_unused_parameters=unused)
    found: torch.nn.Module = kept[_ENGINE]
    return found


def gathered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a model and other arguments that finds its parameters in full, where they are spread."""

    def of_whole(model: torch.nn.Module, *arguments: Any) -> Any:
        held = model.__dict__.get(_ENGINE)
        return held(function, *arguments) if isinstance(held, _Called) else function(model, *arguments)

    return of_whole


def whole(array: Array) -> Array:
    """A tensor in full, from all processes where it is spread. All have to ask."""
    full: Any = getattr(array, "full_tensor", None)
    found: Array = array if full is None else full()
    return found


def own(array: Array) -> Array:
    """This process's part of a tensor that is spread."""
    local: Any = getattr(array, "to_local", None)
    found: Array = array if local is None else local()
    return found


def as_parameter(array: Array, parameter: Array) -> Array:
    """A whole tensor, spread as the parameter is that it belongs to."""
    spread: Any = parameter
    if not hasattr(spread, "full_tensor"):
        return array
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(array, spread.device_mesh, spread.placements)
