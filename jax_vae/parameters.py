"""Canonical arrays in and out: weights and Adam's moments. Twin: torch_vae/parameters.py.

Canonical means PyTorch's names and layouts: `encoder.hidden.0.weight`, shape (out, in). Layers have
the same attribute names in both halves, so this bridge is generic and knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vae_common.randomness import Start
from vae_common.runs.checkpoints import check_arrays

from .device import to_numpy
from .meshes import Placement, put, whole

M = TypeVar("M", bound=nnx.Module)

_CANONICAL = {"kernel": "weight", "embedding": "weight"}


def parameter_shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Canonical name -> canonical shape, also of a model that has no values yet."""
    return {name: tuple(leaf.shape[axis] for axis in axes) for name, (leaf, axes) in _named(model).items()}


def parameter_starts(model: nnx.Module) -> dict[str, Start]:
    """By canonical name, how the parameters begin that say so; layers' own are for the initializer."""
    variables = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda node: isinstance(node, nnx.Variable))[0]
    found = {_name(path): variable.get_metadata().get("start") for path, variable in variables}
    return {name: start for name, start in found.items() if start is not None}


def parameter_dtype(model: nnx.Module) -> str:
    """`float32` or `float64`."""
    return next(iter(_named(model).values()))[0].dtype.name


def dtype_of(model: Any) -> Any:
    """The parameters' dtype as the framework names it."""
    return jax.tree.leaves(model)[0].dtype


def to_arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    """A copy of every parameter as a C-contiguous NumPy array."""
    named = _named(model).items()
    return {name: np.ascontiguousarray(to_numpy(whole(leaf)).transpose(axes)) for name, (leaf, axes) in named}


def load_arrays(model: M, arrays: Mapping[str, np.ndarray], dtype: str, device: Placement) -> M:
    """The model with these canonical values; raises InputError listing every one that does not fit."""
    check_arrays(parameter_shapes(model), arrays)
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    values = []
    for path, leaf in leaves:
        array = arrays[_name(path)].astype(dtype)
        values.append(put(np.ascontiguousarray(array.transpose(np.argsort(_axes(path, leaf)))), device))
    return jax.tree_util.tree_unflatten(structure, values)


def set_apart(gradients: Any, names: Sequence[str]) -> tuple[Any, Any]:
    """The gradients with zeros at these canonical names, and with zeros at all others; None for none."""
    if not names:
        return gradients, None
    apart = jax.tree_util.tree_map_with_path(lambda path, leaf: _name(path) in names, gradients)
    kept = jax.tree.map(lambda leaf, own: jnp.zeros_like(leaf) if own else leaf, gradients, apart)
    return kept, jax.tree.map(lambda leaf, own: leaf if own else jnp.zeros_like(leaf), gradients, apart)


def _named(model: nnx.Module) -> dict[str, tuple[jax.Array, tuple[int, ...]]]:
    """By canonical name each leaf, and its axes in the canonical order."""
    leaves = jax.tree_util.tree_flatten_with_path(model)[0]
    return dict(sorted((_name(path), (leaf, _axes(path, leaf))) for path, leaf in leaves))


def _keys(path: tuple) -> list[str]:
    keys = [str(getattr(key, "name", getattr(key, "idx", getattr(key, "key", "")))) for key in path]
    return keys[:-1] if keys[-1] == "value" else keys  # the content of an nnx.Param


def _name(path: tuple) -> str:
    """The canonical name of a leaf of a module, by its path: `encoder.hidden.0.weight`."""
    return ".".join(_CANONICAL.get(key, key) for key in _keys(path))


def _axes(path: tuple, leaf: jax.Array) -> tuple[int, ...]:
    """Flax keeps a dense kernel as (in, out), a convolution's as (height, width, in, out)."""
    if _keys(path)[-1] != "kernel":
        return tuple(range(leaf.ndim))
    return (1, 0) if leaf.ndim == 2 else (3, 2, 0, 1)
