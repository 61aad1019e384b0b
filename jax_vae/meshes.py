"""A mesh of all devices, and how arrays lie on it. PyTorch has none: there each process has its own tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
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


def copied(tree: Any) -> Any:
    """A copy of a tree's arrays, each placed as it is; `jnp.copy` would compile a program for each shape."""
    return jax.tree.map(lambda array: jax.device_put(array, array.sharding, may_alias=False), tree)


def by_batch(array: jax.Array) -> jax.Array:
    """Inside a program: an array spread over the devices along its first axis, which they need not divide."""
    return jax.lax.with_sharding_constraint(array, NamedSharding(_mesh(), PartitionSpec(AXIS)))


def each_takes(batch: int) -> int:
    """How many images of a batch fall to a device; the last ones may be given fewer."""
    return -(-batch // size())


def own_part(batch: int) -> slice:
    """The part of a batch that falls to this process's devices."""
    places, each = _own_places(), each_takes(batch)
    return slice(min(places[0] * each, batch), min((places[-1] + 1) * each, batch))


def put_part(array: np.ndarray, steps: int, batch: int) -> jax.Array:
    """This process's part of the batches of so many steps, (steps * own, ...), each device's on it.

    One device's lies after the other's, (devices * steps * each, ...), and what a batch does not give is zeros.
    """
    each, places = each_takes(batch), _own_places()
    own = array.reshape(steps, len(array) // steps, *array.shape[1:])
    missing = len(places) * each - own.shape[1]
    own = np.pad(own, [(0, 0), (0, missing), *[(0, 0)] * (own.ndim - 2)]) if missing else own
    of_devices = np.moveaxis(own.reshape(steps, len(places), each, *own.shape[2:]), 1, 0)
    parts = of_devices.reshape(len(places), steps * each, *own.shape[2:])
    shape, sharding = (size() * steps * each, *own.shape[2:]), NamedSharding(_mesh(), PartitionSpec(AXIS))
    with precision("float64" if array.dtype == np.float64 else "float32"):
        on_each = [jax.device_put(part, device) for part, device in zip(parts, _mesh().local_devices)]
        return jax.make_array_from_single_device_arrays(shape, sharding, on_each)


def of_parts(array: jax.Array, order: jax.Array) -> jax.Array:
    """Inside a program: the rows of an array that lies so, as each device's part of an order (batch,) names them."""
    batch = PartitionSpec(AXIS)
    padded = jnp.pad(order, (0, -len(order) % size()))
    of_each = jax.shard_map(lambda rows, own: rows[own], mesh=_mesh(), in_specs=(batch, batch), out_specs=batch)
    return of_each(array, padded)[: len(order)]


def _own_places():
    """The places of this process's devices among all."""
    return [place for place, device in enumerate(_mesh().devices.flat) if device.process_index == jax.process_index()]


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
