"""The schedule of table 1 of Burda et al. 2016: its rows, its stages, and the config of each."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from vae_common.config import PRESETS, Config, LossConfig, OptimizerConfig
from vae_common.config.parts import Objective

Row = Literal["k1", "vae-k5", "vae-k50", "iwae-k5", "iwae-k50"]
ROWS: dict[str, tuple[Objective, int]] = {
    "k1": ("elbo", 1),
    "vae-k5": ("elbo", 5),
    "vae-k50": ("elbo", 50),
    "iwae-k5": ("iwae", 5),
    "iwae-k50": ("iwae", 50),
}
"""Each row's objective and number of samples; with one sample VAE and IWAE are the same model."""
AdamVariant = Literal["paper", "code"]
LAST_STAGE = 7
ADAM_VARIANTS = {
    "paper": OptimizerConfig(beta1=0.9, eps=1e-4),
    "code": OptimizerConfig(beta1=0.99, eps=1e-4, second_moment_start=1.0),
}


def total_epochs(stage: int) -> int:
    """Passes over the training images until the end of a stage."""
    return sum(3**i for i in range(stage + 1))


def learning_rate(stage: int) -> float:
    """A stage's step size."""
    return round(10 ** (1 - stage / LAST_STAGE), 1) * 1e-4


def config_of(base: Config, row: str, stage: int, adam: str) -> Config:
    """A row's experiment up to the end of a stage."""
    objective, samples = ROWS[row]
    training = dataclasses.replace(base.training, epochs=total_epochs(stage), learning_rate=learning_rate(stage))
    loss = LossConfig(objective=objective, samples=samples, kl="sampled", reduction="sum")
    return dataclasses.replace(base, loss=loss, training=training, optimizer=ADAM_VARIANTS[adam])


def base_config(image_shape: tuple[int, int, int], **data: Any) -> Config:
    """784-[200, 200, tanh]-50 and back, dynamic binarization, batch 20; `data` are further fields of its DataConfig."""
    preset = PRESETS["iwae"]
    return dataclasses.replace(preset, image_shape=image_shape, data=dataclasses.replace(preset.data, **data))
