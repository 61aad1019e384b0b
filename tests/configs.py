"""Configs that train in a blink. It imports neither half: processes that need one of them read it, too."""

from __future__ import annotations

from dataclasses import replace

from vae_common.config import Config, NetworkConfig, TrainingConfig
from vae_common.config.registry import MODELS

SMALL_NETWORK = {
    "hidden": (24,),
    "latent_dim": 3,
    "ladder_layers": 2,
    "ladder_width": 8,
    "ladder_hidden": 6,
    "block_channels": (4, 4, 4),
    "norm_groups": 2,
    "latent_channels": 1,
}


def own_fields(model: str, values: dict) -> dict:
    """Those fields of a network's config that the model has."""
    others = {name for entry in MODELS.values() for name in entry.own_fields} - set(MODELS[model].own_fields)
    return {name: value for name, value in values.items() if name not in others}


def small_config(model: str = "vae", dtype: str = "float64", **changes) -> Config:
    """A config that trains in a blink: 784-24-3, batches of 20, two epochs."""
    return replace(
        Config(
            model=model,
            network=NetworkConfig(**own_fields(model, SMALL_NETWORK)),
            training=TrainingConfig(precision=dtype, batch_size=20, epochs=2),
        ),
        **changes,
    )
