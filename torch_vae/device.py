"""Where and in which arithmetic the PyTorch half runs. Twin: jax_vae/device.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from vae_common.configs import InputError


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


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Runs its block in true arithmetic of that dtype.

    Training, inference and checkpoints enter it by themselves; calling a model, `loss_terms` or
    `prepare_images` directly needs it. PyTorch keeps the dtype of its tensors by itself; what it may
    shorten on an accelerator is the arithmetic of float32 products.
    """
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


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
