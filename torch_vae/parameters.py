"""Canonical arrays in and out: weights and Adam's moments. Twin: jax_vae/parameters.py.

Canonical means PyTorch's names and layouts: `encoder.hidden.0.weight`, shape (out, in). Layers have
the same attribute names in both halves, so this bridge is generic and knows no model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from vae_common.randomness import Start
from vae_common.runs.checkpoints import check_arrays

from .device import to_device, to_numpy
from .engines import whole

M = TypeVar("M", bound=nn.Module)


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Canonical name -> canonical shape, also of a model that has no values yet."""
    return {name: tuple(leaf.shape) for name, leaf in _named(model).items()}


def parameter_starts(model: nn.Module) -> dict[str, Start]:
    """By canonical name, how the parameters begin that say so; layers' own are for the initializer."""
    found = {name: getattr(parameter, "start", None) for name, parameter in _named(model).items()}
    return {name: start for name, start in found.items() if start is not None}


def parameter_dtype(model: nn.Module) -> str:
    """`float32` or `float64`."""
    return str(next(iter(_named(model).values())).dtype).removeprefix("torch.")


def dtype_of(model: Any) -> Any:
    """The parameters' dtype as the framework names it."""
    return next(model.parameters()).dtype


def to_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """A copy of every parameter as a C-contiguous NumPy array."""
    return {name: to_numpy(whole(leaf)) for name, leaf in _named(model).items()}


def load_arrays(model: M, arrays: Mapping[str, np.ndarray], dtype: str, device: torch.device) -> M:
    """The model with these canonical values; raises InputError listing every one that does not fit."""
    check_arrays(parameter_shapes(model), arrays)
    values = {name: to_device(array.astype(dtype), device) for name, array in arrays.items()}
    loaded = copy.deepcopy(model)  # the model that was given stays as it is, as in JAX
    loaded.load_state_dict(values, assign=True)
    return loaded.requires_grad_()


def set_apart(gradients: Any, names: Sequence[str]) -> tuple[Any, Any]:
    """The gradients with zeros at these canonical names, and those of these names alone."""
    apart = {name: gradients[name] for name in names}
    return gradients | {name: torch.zeros_like(own) for name, own in apart.items()}, apart


def _named(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(sorted(model.named_parameters()))
