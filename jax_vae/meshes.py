"""A mesh of all devices, and how arrays lie on it. PyTorch has none: there each process has its own tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_common.config import Config
from vae_common.errors import InputError

from .device import device_for, precision, to_device

AXIS = "batch"
_USED: list[Any] = [1, None]


@dataclass(frozen=True)
class Shards:
    """Where a parameter lies that is spread over the devices: cut along its longest axis that they divide."""

    mesh: Mesh

    def of(self, shape: tuple[int, ...]) -> NamedSharding:
        """The sharding of an array of that shape; it is held by all where the devices divide no axis."""
        fitting = [
            axis for axis, length in enumerate(shape) if length >= self.mesh.size and not length % self.mesh.size
        ]
        names: list[str | None] = [None] * len(shape)
        if fitting:
            names[max(fitting, key=lambda axis: shape[axis])] = AXIS
        return NamedSharding(self.mesh, PartitionSpec(*names))


Placement: TypeAlias = jax.Device | NamedSharding | Shards


def require_devices(count: int) -> None:
    """Makes so many of a CPU, or raises InputError where this process has not as many devices."""
    with contextlib.suppress(RuntimeError):  # the devices are there already, as many as there are
        jax.config.update("jax_num_cpu_devices", count)
    there = len(jax.local_devices())
    if there < count:
        said = f"devices: received {count}, but this process has {there}"
        raise InputError(f"{said}; a CPU is cut into as many before its first array is made")


def use(count: int, devices: Sequence[Any] | None = None) -> None:
    """From here on a batch is shared by so many devices: by default the first there are, or those of a machine that is
    elsewhere, to compile for it."""
    _USED[:] = [count, devices]


def size() -> int:
    """How many devices share a batch."""
    count: int = _USED[0]
    return count


def placement_for(config: Config) -> Placement:
    """Where arrays lie that every device holds: on the one there is, or on all."""
    return device_for(config) if size() == 1 else NamedSharding(_mesh(), PartitionSpec())


def parameter_placement(config: Config) -> Placement:
    """Where parameters lie, and what is kept of them."""
    spread = size() > 1 and config.training.sharding == "data+parameters"
    return Shards(_mesh()) if spread else placement_for(config)


def put(array: np.ndarray, placement: Placement) -> jax.Array:
    """A copy of a NumPy array, equal in every process, placed so."""
    if isinstance(placement, jax.Device):
        return to_device(array, placement)
    sharding, whole = placement.of(array.shape) if isinstance(placement, Shards) else placement, np.array(array)
    with precision("float64" if array.dtype == np.float64 else "float32"):
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def by_batch(array: jax.Array) -> jax.Array:
    """Inside a program: an array spread over the devices along its first axis, which they need not divide."""
    return jax.lax.with_sharding_constraint(array, NamedSharding(_mesh(), PartitionSpec(AXIS)))


def placed_by_batch(array: np.ndarray | None) -> Any:
    """A NumPy array spread so, its last row repeated until the devices divide it."""
    if array is None:
        return None
    missing = -len(array) % size()
    padded = np.concatenate([array, np.repeat(array[-1:], missing, 0)]) if missing else array
    return put(padded, NamedSharding(_mesh(), PartitionSpec(AXIS)))


def as_placed(config: Config, tree: Any) -> Any:
    """Inside a program: parameters, or what is kept of them, where they lie outside of it."""
    placement = parameter_placement(config)
    if isinstance(placement, jax.Device):
        return tree
    of = placement.of if isinstance(placement, Shards) else lambda shape: placement
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, of(leaf.shape)), tree)


def whole(array: jax.Array) -> jax.Array:
    """An array in full on every device. All processes have to ask."""
    if size() == 1 or array.is_fully_replicated:
        return array
    return jax.jit(lambda same: same, out_shardings=NamedSharding(_mesh(), PartitionSpec()))(array)


def _mesh():
    devices = jax.devices()[: size()] if _USED[1] is None else _USED[1]
    return Mesh(np.array(devices), (AXIS,))
