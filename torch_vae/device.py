"""Where and in which arithmetic the PyTorch half runs. Twin: jax_vae/device.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vae_common.configs import Config, InputError


def select_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the accelerator that PyTorch finds, else the CPU.

    Raises InputError where the device is not there, with what is.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")  # float64 does not exist on MPS
    if not there.get(name, False):
        have = ", ".join(kind for kind, found in there.items() if found)
        raise InputError(f"device: received {name}, but this PyTorch has {have}; install a build for {name}")
    return torch.device(name)


def device_for(config: Config) -> torch.device:
    """The config's device; InputError where it is not there or has not what is asked for of it."""
    device, training = select_device(config.training.device), config.training
    if training.precision == "tf32" and device.type != "cuda":
        raise InputError(f"precision: received tf32 on {device.type}, which has none; use float32 or --device cuda")
    if training.precision == "float64" and device.type == "mps":
        raise InputError("precision: received float64 on mps, which has none; use float32 or --device cpu")
    if training.execution == "graph" and device.type != "cuda":
        raise InputError(f"execution: received graph on {device.type}; graphs are CUDA's: use compile, eager or auto")
    return device


def execution_for(config: Config) -> str:
    """How an epoch's steps run on the config's device: `auto` is resolved."""
    chosen = config.training.execution
    return ("graph" if device_for(config).type == "cuda" else "eager") if chosen == "auto" else chosen


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Runs its block in true arithmetic of that precision (see `TrainingConfig.precision`).

    Training, inference and checkpoints enter it by themselves; calling a model, `loss_terms` or
    `prepare_images` directly needs it. PyTorch keeps the dtype of its tensors by itself; what it may
    shorten on an accelerator is the arithmetic of float32 products. (bfloat16 operands: see `models.networks.affine`.)
    """
    products = torch.backends.cuda.matmul
    kept = products.allow_tf32, torch.backends.cudnn.allow_tf32, products.allow_bf16_reduced_precision_reduction
    products.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    products.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        products.allow_tf32, torch.backends.cudnn.allow_tf32, products.allow_bf16_reduced_precision_reduction = kept


def cache_programs(folder: str | None) -> None:
    """Keeps compiled programs in that folder for later processes; None keeps none. Before the first compilation."""
    torch.compiler.config.force_disable_caches = folder is None
    if folder is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/torch"


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of a NumPy array on the device, in its own dtype."""
    return torch.tensor(np.asarray(array, order="C"), device=device)


def to_numpy(array: torch.Tensor) -> np.ndarray:
    """A copy of an array of this half as a NumPy array."""
    return array.detach().cpu().numpy().copy(order="C")


def synchronize(tree: Any) -> None:
    """Waits until everything that was queued on the accelerator has been computed."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int | None:
    """The most bytes of the device's own memory that tensors have held so far; None for a CPU, which has none."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def environment(name: str = "auto") -> dict[str, str]:
    """What a record must say of this half's software and hardware."""
    device = select_device(name)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "framework": f"torch {torch.__version__}",
        "device": f"{device.type}: {kind}",
        "threads": str(torch.get_num_threads()),
    }
