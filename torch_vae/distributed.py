"""Many processes and devices: one batch, cut by place, and one result. Twin: jax_vae/distributed.py.

Every process calls the same functions with the same arguments, those of the whole (global) batch; each computes on its
part. What is a mean over images is one over all of them: `batch_means` adds up the parts, and its gradient is the
global mean's. Gradients are averaged by DDP, or by `fully_shard` where parameters are spread, too (engines.py).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vae_common import worlds
from vae_common.config import Config
from vae_common.contracts import map_arrays
from vae_common.errors import InputError, one_line, require
from vae_common.worlds import World

from .device import Array, device_for, lend_to_device, to_device

_PATIENCE = timedelta(hours=1)
"""How long a process waits for another that is alive: the first one may be writing."""
_JOINED: list[World] = [World()]


def start(world: World, devices: int = 1, device: str = "auto") -> None:
    """Joins the other processes, each of which drives one device; `device` is the config's.

    Raises InputError where they do not all join in time, two share an accelerator, or the port is in use.
    """
    if devices > 1:
        raise InputError(f"devices: received {devices} in one process, expected 1: PyTorch takes a process for each")
    if world.size == 1:
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:  # some launchers show each process its own device alone
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    if not world.agent:
        worlds.meet(world, world.port, _own_device() if cuda else "")
    names = [f"joined {rank}" for rank in range(world.size)]
    where = "env://" if world.agent else f"tcp://{world.address}:{world.port}"
    limit = timedelta(seconds=world.timeout)
    try:
        store, _, _ = next(iter(rendezvous(where, world.rank, world.size, timeout=limit)))
        store.set(names[world.rank], _own_device() if cuda else "")
        store.wait(names, limit)
        worlds.require_own_devices([store.get(name).decode() for name in names] if cuda else [])
        group = PrefixStore("batch", store)
        backend = "nccl" if cuda else "gloo"
        distributed.init_process_group(backend, store=group, rank=world.rank, world_size=world.size, timeout=_PATIENCE)
    except InputError:
        raise
    except (RuntimeError, ValueError) as error:
        raise worlds.not_met(world, world.port, one_line(error, 120)) from error
    _JOINED[0] = world


def _own_device() -> str:
    """Names this process's accelerator among all machines'."""
    return f"{socket.gethostname()} {torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def stop() -> None:
    """Leaves the other processes."""
    if _JOINED[0].size > 1:
        agree(None)  # nobody is waited for any more
        distributed.destroy_process_group()
    _JOINED[0] = World()


def world() -> World:
    """The processes that share a training."""
    return _JOINED[0]


def devices() -> int:
    """How many devices share a batch."""
    return _JOINED[0].size


def require_shareable(config: Config) -> None:
    """Raises InputError where a config asks for what several devices do not take."""
    asked = config.training.execution
    shared = devices() > 1
    require(not shared or asked in ("auto", "eager"), "execution", f"{asked} on {devices()} devices", "auto or eager")


def agree(error: str | None) -> list[str]:
    """What the processes have met with, of those that met with something: all of them learn of it."""
    if devices() == 1:
        return [] if error is None else [error]
    found: list[Any] = [None] * devices()
    distributed.all_gather_object(found, error)
    return [said for said in found if said is not None]


def split(arrays: Any) -> Any:
    """This process's part of arrays that have the global batch first; nested tuples of them and None."""
    if devices() == 1:
        return arrays
    return map_arrays(lambda array: array[worlds.part_of(len(array), world().rank, devices())], arrays)


def batch_means(arrays: Any) -> Any:
    """The means over the global batch's images of arrays (batch,), nested as they are."""
    if devices() == 1:
        return map_arrays(lambda array: array.mean(), arrays)
    found: list[Array] = []
    map_arrays(found.append, arrays)
    sums = _Summed.apply(torch.stack([array.sum() for array in found]))
    each, count = iter(sums), batch_count(found[0])
    return map_arrays(lambda array: next(each) / count, arrays)


def batch_mean(array: Array) -> Array:
    """The mean over the global batch's images, (...), of an array (batch, ...)."""
    return array.mean(0) if devices() == 1 else _Summed.apply(array.sum(0)) / batch_count(array)


def batch_count(array: Array) -> int:
    """How many images the global batch has, of an array (batch, ...)."""
    if devices() == 1:
        return len(array)
    count = torch.tensor(len(array), device=array.device)
    distributed.all_reduce(count)
    return int(count)


def batch_place(array: Array) -> int:
    """Where in the global batch this process's part of an array (batch, ...) begins."""
    return 0 if devices() == 1 else worlds.part_of(batch_count(array), world().rank, devices()).start


def whole_batch(array: Array) -> Array:
    """The global batch's array (batch, ...), of its parts; gradients go back to where each comes from."""
    if devices() == 1:
        return array
    count = batch_count(array)
    parts = [worlds.part_of(count, rank, devices()) for rank in range(devices())]
    padded = torch.cat([array, array.new_zeros((parts[0].stop - len(array), *array.shape[1:]))])
    found = _Gathered.apply(padded)
    return torch.cat([of[: part.stop - part.start] for of, part in zip(found, parts)])


def own_part(count: int) -> slice:
    """The part of so many images, a batch's or others that are shared, that this process reads."""
    return worlds.part_of(count, world().rank, devices())


def place_part(array: np.ndarray, config: Config, steps: int, batch: int) -> Array:
    """This process's part of the batches of so many steps, (steps * own, ...), as it stays on its device. It may take
    the array's own memory: nobody may change it then."""
    return lend_to_device(array, device_for(config))


def part_order(steps: int, batch: int) -> np.ndarray:
    """The order of a stream's steps, int32 (steps, batch): each image's row where its process has its part."""
    order, own = np.zeros((steps, batch), np.int32), own_part(batch)
    order[:, own] = np.arange(order[:, own].size).reshape(steps, -1)
    return order


def taken(config: Config, array: Array, order: Array) -> Array:
    """The rows of a resident array that a step's order names."""
    return array.index_select(0, order)


def place_shared(model: Any, count: int, *arrays: np.ndarray | None) -> list[Any]:
    """So many images' arrays, this process's part of each, where the model is; None stays what it is."""
    device = next(model.parameters()).device
    return [None if array is None else to_device(array, device) for array in arrays]


def shared(function: Callable[..., Any], model: Any, count: int, *placed: Any) -> Any:
    """What an inference function gives of a model and so many images' arrays, from `place_shared`: all results.

    Those are arrays (count, ...), or nested tuples of them and None.
    """
    own = function(model, *placed)
    if devices() == 1:
        return own
    found: list[Any] = [None] * devices()
    distributed.all_gather_object(found, map_arrays(lambda array: array.cpu(), own))
    return map_arrays(lambda *each: torch.cat(each), *found)


class _Summed(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs. (PyTorch's own that differentiates is to go.)"""

    @staticmethod
    def forward(context: Any, array: Array) -> Array:
        array = array.clone()
        distributed.all_reduce(array)
        return array

    @staticmethod
    def backward(context: Any, gradient: Array) -> Array:
        return _Summed.apply(gradient)


class _Gathered(torch.autograd.Function):
    """The arrays of all processes, (processes, batch, ...); the gradient of each is the sum of theirs."""

    @staticmethod
    def forward(context: Any, array: Array) -> Array:
        found = [torch.empty_like(array) for _ in range(devices())]
        distributed.all_gather(found, array.contiguous())
        return torch.stack(found)

    @staticmethod
    def backward(context: Any, gradient: Array) -> Array:
        return _Summed.apply(gradient)[world().rank]
