"""Opening what was trained: a run's folder becomes a model. Twin: torch_vae/loading.py."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from vae_common.config import Config
from vae_common.runs import checkpoints, diffusers

from .device import select_device
from .layers import Autoencoder
from .models import create_model
from .parameters import load_arrays, to_arrays


class Loaded(NamedTuple):
    """A trained model, and the experiment that it comes from."""

    model: Autoencoder
    config: Config


def load(folder: str | os.PathLike[str]) -> Loaded:
    """The model of a run's last checkpoint, whichever half trained it, on the device at hand.

    Its weights are those that evaluations use: their moving average where one was kept. InputError where the folder is
    no run's.
    """
    checkpoint = checkpoints.read_run(folder)
    config = checkpoint.here
    model = create_model(config)
    return Loaded(load_arrays(model, checkpoint.weights, config.training.dtype, select_device()), config)


def load_diffusers(
    folder: str | os.PathLike[str], image_shape: tuple[int, int, int] | None = None, precision: str = ""
) -> Loaded:
    """The `kl_autoencoder` of a folder that diffusers' `AutoencoderKL.save_pretrained` wrote, on the device at hand.

    Args:
        image_shape: of the images that it will be given; by default the folder's `sample_size`.
        precision: by default the weights' own.

    Raises InputError where a file is missing or damaged, and for every setting that would change a result and that
    `kl_autoencoder` has not.
    """
    found = diffusers.read(folder, image_shape)
    config = diffusers.with_precision(found, precision) if precision else found.config
    model = create_model(config)
    return Loaded(load_arrays(model, found.weights, config.training.dtype, select_device()), config)


def save_diffusers(
    model: Autoencoder, config: Config, folder: str | os.PathLike[str], carried: Mapping[str, Any] | None = None
) -> None:
    """Writes a `kl_autoencoder` as diffusers' `AutoencoderKL.from_pretrained` reads it; the inverse of
    `load_diffusers`.

    Args:
        carried: what its config.json says for pipelines alone, for example {"scaling_factor": 0.18215}.

    Raises InputError where diffusers has no such model.
    """
    diffusers.write(folder, config, to_arrays(model), carried or {})
