"""Canonical arrays in and out: weights and Adam's moments. Twin: torch_vae/parameters.py.

Canonical means PyTorch's names and layouts: `encoder.hidden.0.weight`, shape (out, in). Layers have
the same attribute names in both halves, so this bridge is generic and knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np
from flax import nnx

from vae_common.checkpoints import check_arrays

from .device import to_device, to_numpy

M = TypeVar("M", bound=nnx.Module)

_CANONICAL = {"kernel": "weight"}


def parameter_shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Canonical name -> canonical shape, also of a model that has no values yet."""
    return {name: tuple(leaf.shape[::-1]) for name, leaf in _named(model).items()}


def parameter_dtype(model: nnx.Module) -> str:
    """`float32` or `float64`."""
    return next(iter(_named(model).values())).dtype.name


def to_arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    """A copy of every parameter as a C-contiguous NumPy array."""
    return {name: _transpose(to_numpy(leaf)) for name, leaf in _named(model).items()}


def load_arrays(model: M, arrays: Mapping[str, np.ndarray], dtype: str, device: jax.Device) -> M:
    """The model with these canonical values; raises InputError listing every one that does not fit."""
    check_arrays(parameter_shapes(model), arrays)
    named = {name: _transpose(array.astype(dtype)) for name, array in arrays.items()}
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    values = [to_device(named[_name(path)], device) for path, _ in leaves]
    return jax.tree_util.tree_unflatten(structure, values)


def _named(model: nnx.Module) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_flatten_with_path(model)[0]
    return dict(sorted((_name(path), leaf) for path, leaf in leaves))


def _name(path: tuple) -> str:
    """The canonical name of a leaf of a module: `encoder.hidden.0.weight`."""
    keys = [str(getattr(key, "name", getattr(key, "idx", getattr(key, "key", "")))) for key in path]
    if keys[-1] == "value":  # the content of an nnx.Param
        keys.pop()
    return ".".join(_CANONICAL.get(key, key) for key in keys)


def _transpose(array: np.ndarray) -> np.ndarray:
    """Between (in, out) and (out, in). Contiguous: safetensors corrupts a transposed view."""
    return np.ascontiguousarray(array.T)
