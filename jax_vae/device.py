"""Where and in which arithmetic the JAX half runs. Twin: torch_vae/device.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_common.configs import Config, InputError


def select_device(name: str = "auto") -> jax.Device:
    """The device of that name; `auto` is the accelerator that JAX finds, else the CPU.

    Raises InputError where the device is not there, with what is.
    """
    if name == "auto":
        return jax.devices()[0]
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        have = ", ".join(sorted({"cpu", *(d.platform for d in jax.devices())}))
        raise InputError(f"device: received {name}, but this JAX has {have}; install a build for {name}") from error


def device_for(config: Config) -> jax.Device:
    """The config's device; InputError where it is not there or has not the arithmetic that is asked for."""
    device = select_device(config.training.device)
    if config.training.precision == "tf32" and device.platform not in ("cuda", "gpu"):
        raise InputError(f"precision: received tf32 on {device.platform}, which has none; use float32 or --device cuda")
    return device


def execution_for(config: Config) -> str:
    """How an epoch's steps run on the config's device, `eager` or as one `program`: `auto` is resolved.

    In a loop, XLA's convolutions for CPUs take many times as long as outside of one.
    """
    chosen, looped = config.training.execution, device_for(config).platform == "cpu" and config.network.channels
    return "eager" if chosen == "eager" or (chosen == "auto" and looped) else "program"


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Runs its block in true arithmetic of that precision (see `TrainingConfig.precision`).

    Training, inference and checkpoints enter it by themselves; calling a model, `loss_terms` or
    `prepare_images` directly needs it. Without it JAX turns float64 into float32 silently, and an
    accelerator may multiply float32 matrices in a shorter format. (bfloat16 operands: see `models.networks.affine`.)
    """
    products = "tensorfloat32" if name == "tf32" else "highest"
    with jax.enable_x64(name == "float64"), jax.default_matmul_precision(products):
        yield


def cache_programs(folder: str | None) -> None:
    """Keeps compiled programs in that folder for later processes; None keeps none."""
    jax.config.update("jax_enable_compilation_cache", folder is not None)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", f"{folder}/jax")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def to_device(array: np.ndarray, device: jax.Device) -> jax.Array:
    """A copy of a NumPy array on the device, in its own dtype."""
    with precision("float64" if array.dtype == np.float64 else "float32"):
        return jax.device_put(jnp.array(array), device)


def to_numpy(array: jax.Array) -> np.ndarray:
    """A copy of an array of this half as a NumPy array."""
    return np.array(array)


def synchronize(tree: Any) -> None:
    """Waits until every array of a tree has been computed."""
    jax.block_until_ready(tree)


def peak_memory(device: jax.Device) -> int | None:
    """The most bytes of the device's own memory that arrays have held so far; None for a CPU, which has none."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    return None if statistics is None else statistics.get("peak_bytes_in_use")


def environment(name: str = "auto") -> dict[str, str]:
    """What a record must say of this half's software and hardware."""
    import flax
    import optax

    device = select_device(name)
    return {
        "framework": f"jax {jax.__version__}, flax {flax.__version__}, optax {optax.__version__}",
        "device": f"{device.platform}: {device.device_kind}",
        "threads": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }
