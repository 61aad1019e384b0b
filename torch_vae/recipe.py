"""The recipe of pytorch/examples' VAE, written anew, to measure against; the JAX half has none.

A DataLoader makes of every image a PIL image and of that a tensor; steps are eager, Adam is the default one, and the
loss is read back at every step. Network, loss and batch are the half's own.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from vae_common.config import Config

from .device import device_for
from .losses import loss_terms
from .models import create_model


class Images(Dataset):
    """One image at a time, through PIL, as torchvision's MNIST and ToTensor do."""

    def __init__(self, images: np.ndarray):
        self.images = images[..., 0]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = np.array(Image.fromarray(self.images[index]), copy=True)
        return torch.from_numpy(pixels)[None].to(torch.float32).div(255)


def recipe_epochs(config: Config, images: np.ndarray, epochs: int) -> list[float]:
    """Trains that many epochs on images, uint8 (N, height, width, 1); the seconds that each of them took."""
    model, device = create_model(config), device_for(config)
    dtype, on_cuda = getattr(torch, config.training.dtype), device.type == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), config.training.learning_rate)
    workers: dict[str, Any] = {"num_workers": 1, "pin_memory": True} if on_cuda else {}  # as the original has it
    loader = DataLoader(Images(images), config.training.batch_size, shuffle=True, drop_last=True, **workers)
    seconds = []
    for _ in range(epochs):
        start, total = time.perf_counter(), 0.0
        for batch in loader:
            optimizer.zero_grad()
            pixels = batch.to(device, dtype).permute(0, 2, 3, 1)
            noise = torch.randn(len(batch), config.noise_dim, device=device, dtype=dtype)
            loss = loss_terms(config.loss, model(pixels, noise), pixels)
            loss.total.sum().backward()
            total += loss.total.sum().item()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds
