"""The recipe of pytorch/examples' VAE, written anew: a DataLoader that makes of every image a PIL image and of that a
tensor, eager steps, default Adam, the loss read back at every step. Network, loss and batch are the halves' own."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import torch_vae
from vae_common.benchmarks import Case, spread, synthetic_images


class Images(Dataset):
    """One image at a time, through PIL, as torchvision's MNIST and ToTensor do."""

    def __init__(self, images: np.ndarray):
        self.images = images[..., 0]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = np.array(Image.fromarray(self.images[index]), copy=True)
        return torch.from_numpy(pixels)[None].to(torch.float32).div(255)


def measure_recipe(case: Case) -> dict[str, Any]:
    """Whole epochs, as `vae_common.benchmarks` measures them for the halves."""
    config = case.config()
    model, device = torch_vae.create_model(config), torch_vae.device_for(config)
    dtype, on_cuda = getattr(torch, config.training.dtype), device.type == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), config.training.learning_rate)
    images = Images(synthetic_images(config, case.images or 60 * case.batch_size))
    workers: dict[str, Any] = {"num_workers": 1, "pin_memory": True} if on_cuda else {}  # as the original has it
    loader = DataLoader(images, batch_size=case.batch_size, shuffle=True, drop_last=True, **workers)
    seconds = []
    for _ in range(case.rounds + 1):
        start, total = time.perf_counter(), 0.0
        for batch in loader:
            optimizer.zero_grad()
            pixels = batch.to(device, dtype).permute(0, 2, 3, 1)
            noise = torch.randn(len(batch), config.noise_dim, device=device, dtype=dtype)
            loss = torch_vae.loss_terms(config.loss, model(pixels, noise), pixels)
            loss.total.sum().backward()
            total += loss.total.sum().item()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    images_per_second = len(loader) * case.batch_size / statistics.median(seconds[1:])
    environment = torch_vae.environment(case.device)
    record = {"case": dataclasses.asdict(case), "key": case.key, "environment": environment}
    measured = {"epoch_seconds": spread(seconds[1:]), "images_per_second": images_per_second, "steps": len(loader)}
    return record | measured | {"rounds": {"epoch_seconds": seconds[1:]}}
