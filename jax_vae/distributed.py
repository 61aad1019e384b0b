"""Many processes and devices: one batch, cut by place, and one result. Twin: torch_vae/distributed.py.

Every process calls the same functions with the same arguments, those of the whole (global) batch; each computes on its
part. The compiler does the cutting: arrays lie on a mesh of all devices (meshes.py), a step's
batch is spread over it, and whatever is computed of that is global, sums and means too.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import jax
import numpy as np

from vae_common import worlds
from vae_common.config import Config
from vae_common.contracts import map_arrays
from vae_common.errors import one_line
from vae_common.worlds import World

from . import meshes
from .device import Array, device_for, lend_to_device, to_device, to_numpy

_JOINED: list[World] = [World()]
_HEARTBEAT = 20
"""Seconds without a sign of life after which a process counts as dead."""


def start(world: World, devices: int = 1, device: str = "auto") -> None:
    """Joins the other processes, each of which drives so many devices; `device` is the config's. Before the first
    array is made.

    Raises InputError where they do not all join in time, two share an accelerator, the port is in use, or there are
    not so many devices.
    """
    if devices > 1:
        meshes.require_devices(devices)
    if world.size > 1:
        port = world.port + 1  # at its own torchrun's agent listens
        if device == "cpu":
            jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.config.update("jax_enable_recoverability", True)  # or JAX aborts who loses another, before it can say so
        own = _own_devices(world, devices)
        worlds.meet(world, port, "" if device == "cpu" else _gpu(own[0]))
        try:
            jax.distributed.initialize(
                f"{world.address}:{port}",
                world.size,
                world.rank,
                initialization_timeout=max(1, round(world.timeout)),
                heartbeat_timeout_seconds=_HEARTBEAT,
                local_device_ids=own,
            )
        except (RuntimeError, ValueError) as error:
            raise worlds.not_met(world, port, one_line(error, 120)) from error
    _JOINED[0] = world
    meshes.use(devices if world.size == 1 else world.size * devices)


def _own_devices(world: World, count: int) -> list[int]:
    """The accelerators of this process among those that it sees: some launchers show each its own alone."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    first = 0 if len(seen) == count and seen != [""] else world.local_rank * count
    return list(range(first, first + count))


def _gpu(place: int) -> str:
    """Names the GPU that falls to a place among all machines', as the driver does: JAX is not to look for it yet.

    Empty where there is none that JAX would take.
    """
    plugins = [plugin.name for plugin in entry_points(group="jax_plugins")]
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu") or not any("cuda" in name for name in plugins):
        return ""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    count, uuid = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return ""
    # The later one tells the parts of a shared GPU apart.
    name = getattr(driver, "cuDeviceGetUuid_v2", None) or driver.cuDeviceGetUuid
    failed = name(uuid, place % count.value)
    return "" if failed else f"{socket.gethostname()} {bytes(uuid).hex()}"


def stop() -> None:
    """Leaves the other processes."""
    world = _JOINED[0]
    if world.size > 1:
        agree(None)  # nobody is waited for any more
        if world.rank > 0:
            jax.distributed.shutdown()
        worlds.meet(world, world.port + 2)
        if world.rank == 0:  # last: a process that finds the first one gone is aborted by JAX
            jax.distributed.shutdown()
    _JOINED[0] = World()
    meshes.use(1)


def world() -> World:
    """The processes that share a training."""
    return _JOINED[0]


def devices() -> int:
    """How many devices share a batch."""
    return meshes.size()


def require_shareable(config: Config) -> None:
    """Raises InputError where a config asks for what several devices do not take: there is nothing."""


def agree(error: str | None) -> list[str]:
    """What the processes have met with, of those that met with something: all of them learn of it."""
    if world().size == 1:
        return [] if error is None else [error]
    from jax.experimental import multihost_utils

    said = np.frombuffer((error or "").encode()[:_MOST].ljust(_MOST, b"\0"), np.uint8)
    found = np.asarray(multihost_utils.process_allgather(said))
    return [text for row in found if (text := row.tobytes().rstrip(b"\0").decode(errors="ignore"))]


def split(arrays: Any) -> Any:
    """Arrays that have the global batch first, spread over the devices; nested tuples of them and None."""
    return arrays if devices() == 1 else jax.tree.map(meshes.by_batch, arrays)


def batch_means(arrays: Any) -> Any:
    """The means over the global batch's images of arrays (batch,), nested as they are."""
    return map_arrays(lambda array: array.mean(), arrays)


def batch_mean(array: Array) -> Array:
    """The mean over the global batch's images, (...), of an array (batch, ...)."""
    return array.mean(0)


def batch_count(array: Array) -> int:
    """How many images the global batch has, of an array (batch, ...)."""
    return len(array)


def batch_place(array: Array) -> int:
    """Where in the global batch this process's part of an array (batch, ...) begins."""
    return 0


def whole_batch(array: Array) -> Array:
    """The global batch's array (batch, ...), of its parts; gradients go back to where each comes from."""
    return array


def own_part(count: int) -> slice:
    """The part of so many images, a batch's or others that are shared, that this process reads."""
    return meshes.own_part(count)


def place_part(array: np.ndarray, config: Config, steps: int, batch: int) -> Array:
    """This process's part of the batches of so many steps, (steps * own, ...), as it stays on its devices. They may
    take the array's own memory: nobody may change it then."""
    return meshes.put_part(array, steps, batch) if devices() > 1 else lend_to_device(array, device_for(config))


def part_order(steps: int, batch: int) -> np.ndarray:
    """The order of a stream's steps, int32 (steps, batch): each image's row where its device has its part."""
    each = meshes.each_takes(batch)
    return (np.arange(steps)[:, None] * each + np.arange(batch) % each).astype(np.int32)


def taken(config: Config, array: Array, order: Array) -> Array:
    """The rows of a resident array that a step's order names; of a stream each device takes them from its part."""
    return meshes.of_parts(array, order) if config.data.stream and devices() > 1 else array[order]


def place_shared(model: Any, count: int, *arrays: np.ndarray | None) -> list[Any]:
    """So many images' arrays, this process's part of each, where the model is; None stays what it is."""
    if devices() > 1:
        return [None if array is None else meshes.put_part(array, 1, count) for array in arrays]
    (device,) = jax.tree.leaves(model)[0].devices()
    return [None if array is None else to_device(array, device) for array in arrays]


def shared(function: Callable[..., Any], model: Any, count: int, *placed: Any) -> Any:
    """What an inference function gives of a model and so many images' arrays, from `place_shared`: all results.

    Those are arrays (count, ...), or nested tuples of them and None.
    """
    found = function(model, *placed)
    return found if devices() == 1 else map_arrays(lambda array: to_numpy(meshes.whole(array))[:count], found)


_MOST = 1000
